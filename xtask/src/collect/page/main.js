// Asks the collector what there is whenever it says that there is news, and hands that to the parts of the page.

import { $, say } from "./dom.js";
import * as machines from "./machines.js";
import * as upgrades from "./upgrades.js";

/** The collector gives a sign of life every 5 s. */
const SILENCE_MS = 15000;

let stream = null;
let heard = 0;
let asking = false;
let again = false;
let skew = 0;

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

/** One question at a time; news that come meanwhile are asked for afterwards. */
async function refresh() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  do {
    again = false;
    try {
      const fleet = await ask("/api/fleet");
      skew = Date.now() - fleet.now_ms;
      const [machine, upgrade] = await Promise.all([machines.details(fleet, ask), upgrades.details(fleet, ask)]);
      show(fleet, machine, upgrade);
    } catch {
      // The stream says whether the collector is there; perhaps it only has too many readers just now.
      setTimeout(refresh, 2000);
    }
  } while (again);
  asking = false;
}

function show(fleet, machine, upgrade) {
  const nobody = fleet.machines.length === 0;
  $("empty").hidden = !nobody;
  $("machines").hidden = nobody;
  $("upgrades").hidden = nobody;
  machines.show(fleet, machine, skew);
  upgrades.show(fleet, upgrade);
}

function connected(yes) {
  $("connection").dataset.state = yes ? "live" : "lost";
  say($("connection-text"), yes ? "live" : "disconnected: the collector does not answer; trying again");
}

function connect() {
  stream?.close();
  heard = Date.now();
  stream = new EventSource("/api/events");
  const alive = () => {
    heard = Date.now();
    connected(true);
  };
  stream.addEventListener("alive", alive);
  stream.addEventListener("news", () => {
    alive();
    refresh();
  });
  stream.addEventListener("error", () => connected(false));
}

// A browser opens few connections to one address: pages that nobody sees leave theirs to the others.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stream.close();
  else connect();
});

setInterval(() => {
  if (document.hidden) return;
  const closed = stream.readyState === EventSource.CLOSED;
  const silent = Date.now() - heard > SILENCE_MS;
  if (silent) connected(false);
  // A browser tries again by itself after a broken connection, but not after a refusal, nor after silence.
  if (closed || silent) connect();
  machines.tick(skew);
}, 1000);

const here = location.port || "80";
say($("empty-word"), `OTEL_EXPORTER_OTLP_ENDPOINT=http://ADDRESS:${here}`);
say($("empty-run"), `cargo xtask run hello --append OTEL_EXPORTER_OTLP_ENDPOINT=http://10.0.2.2:${here}`);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.defaultPrevented) upgrades.close() || machines.close();
});
addEventListener("hashchange", refresh);
connect();
refresh();
