// The upgrades: a list, newest first, and one of them opened.

import { $, badge, blackout, clock, day, duration, make, OUTCOMES, say, sync, terms, versions } from "./dom.js";
import { chart } from "./chart.js";
import { waterfall } from "./waterfall.js";

let outcomes = null;
let shown = null;
let drawn = "";
let opened = null;
let zoom = null;

/** The upgrade that the address names: so it can be linked to, and the browser's own keys go back. */
const wanted = () => (location.hash.startsWith("#upgrade/") ? location.hash.slice(9) : null);

export const link = (upgrade) => `#upgrade/${upgrade.id}`;

export async function details(fleet, ask) {
  const id = wanted();
  return id && fleet.upgrades.some((upgrade) => upgrade.id === id) ? ask(`/api/upgrades/${id}`) : null;
}

function item(upgrade) {
  const anchor = make("a", { href: link(upgrade) });
  anchor.append(make("span", { class: "versions" }), make("span", { class: "outcome" }), make("span", { class: "where" }), make("span", { class: "number" }));
  return make("li", {}, anchor);
}

function update(element, upgrade) {
  const anchor = element.firstElementChild;
  const [name, outcome, where, time] = anchor.children;
  say(name, versions(upgrade));
  if (outcome.dataset.outcome !== upgrade.outcome) outcome.replaceChildren(badge(upgrade.outcome));
  outcome.dataset.outcome = upgrade.outcome;
  say(where, `${upgrade.service} on ${upgrade.host}, ${clock(upgrade.start_ms)}`);
  say(time, blackout(upgrade) ?? "–");
  if (shown === upgrade.id) anchor.setAttribute("aria-current", "true");
  else anchor.removeAttribute("aria-current");
}

/** One stop for Tab, and arrow keys within: for a list of links. */
export function rove(links, preferred) {
  const stop = links.find((link) => link === document.activeElement) ?? preferred ?? links[0];
  for (const link of links) link.setAttribute("tabindex", link === stop ? "0" : "-1");
}

export function arrows(event, links) {
  const at = links.indexOf(document.activeElement);
  const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, Home: -links.length, End: links.length };
  const step = steps[event.key];
  if (at < 0 || step === undefined) return;
  event.preventDefault();
  links[Math.min(links.length - 1, Math.max(0, at + step))].focus();
  rove(links);
}

const links = () => [...$("upgrade-list").querySelectorAll("a")];

/** Says aloud what has ended since the last look. */
function announce(upgrades) {
  const now = new Map(upgrades.map((upgrade) => [upgrade.id, upgrade.outcome]));
  const ended = upgrades.filter((upgrade) => outcomes && upgrade.outcome !== "pending" && outcomes.get(upgrade.id) !== upgrade.outcome);
  const last = ended.at(-1);
  if (last) say($("news"), `Upgrade ${versions(last)} on ${last.host}: ${OUTCOMES[last.outcome]?.[1]}, blackout ${blackout(last) ?? "unknown"}`);
  outcomes = now;
}

export function show(fleet, upgrade) {
  shown = upgrade?.id ?? null;
  const newest = [...fleet.upgrades].reverse();
  $("no-upgrades").hidden = newest.length > 0;
  $("upgrade-hint").hidden = newest.length === 0;
  $("chart").hidden = !newest.some((one) => one.blackout_ns !== null);
  sync($("upgrade-list"), newest, (one) => one.id, item, update);
  rove(links(), links().find((link) => link.hasAttribute("aria-current")));
  chart(fleet.upgrades, shown);
  table(newest);
  announce(fleet.upgrades);
  detail(upgrade);
}

function table(upgrades) {
  const known = upgrades.filter((one) => one.blackout_ns !== null);
  sync(
    $("blackouts"),
    known,
    (one) => one.id,
    (one) => make("tr", {}, make("td"), make("td", {}, make("a", { href: link(one) })), make("td"), make("td", { class: "number" })),
    (row, one) => {
      const [time, name, outcome, length] = row.children;
      say(time, day(one.start_ms));
      say(name.firstElementChild, versions(one));
      say(outcome, OUTCOMES[one.outcome]?.[1] ?? "unknown");
      say(length, blackout(one));
    },
  );
}

function detail(upgrade) {
  $("upgrade").hidden = upgrade === null;
  document.body.classList.toggle("opened", upgrade !== null);
  if (upgrade === null) {
    opened = drawn = null;
    return;
  }
  const fresh = opened !== upgrade.id;
  if (fresh) {
    opened = upgrade.id;
    zoom = null;
  }
  const text = JSON.stringify(upgrade) + zoom;
  if (text !== drawn) {
    drawn = text;
    draw(upgrade);
  }
  if (fresh) {
    $("upgrade-title").focus({ preventScroll: true });
    $("upgrade").scrollIntoView({ block: "nearest" });
  }
}

function draw(upgrade) {
  say($("upgrade-title"), `${upgrade.service} ${versions(upgrade)}`);
  $("upgrade-outcome").replaceChildren(badge(upgrade.outcome), ` on ${upgrade.host}, ${day(upgrade.start_ms)}`);
  $("upgrade-reason").hidden = !upgrade.reason && !upgrade.error_type;
  const kind = upgrade.error_type ? [make("strong", {}, upgrade.error_type), upgrade.reason ? ": " : ""] : [];
  const reason = upgrade.error_type && upgrade.reason?.startsWith(`${upgrade.error_type}: `) ? upgrade.reason.slice(upgrade.error_type.length + 2) : upgrade.reason;
  $("upgrade-reason").replaceChildren("Why: ", ...kind, reason ?? "");
  const facts = [["Blackout", blackout(upgrade) ?? "not known"], ["From first to last span", duration(upgrade.duration_ns)]];
  if (upgrade.cores_flushed) facts.push(["Cores that flushed", String(upgrade.cores_flushed)]);
  facts.push(["Trace", make("code", {}, upgrade.trace_id)]);
  terms($("upgrade-facts"), facts);
  const short = upgrade.blackout_ns !== null && upgrade.blackout_ns < upgrade.duration_ns / 10;
  const chosen = upgrade.blackout_ns === null ? "whole" : (zoom ?? (short ? "0" : "whole"));
  $("zoom").hidden = upgrade.blackout_ns === null;
  $("zoom-back").hidden = upgrade.blackout.length < 2;
  for (const radio of document.querySelectorAll("#zoom input")) radio.checked = radio.value === chosen;
  waterfall(upgrade, chosen);
}

/** Closes what is open; whether there was something. */
export function close() {
  if (wanted() === null) return false;
  const id = shown;
  history.pushState(null, "", location.pathname);
  detail(null);
  const back = links().find((link) => link.getAttribute("href") === `#upgrade/${id}`);
  shown = null;
  for (const link of links()) link.removeAttribute("aria-current");
  back?.focus();
  rove(links(), back);
  return true;
}

$("upgrade-close").addEventListener("click", close);
$("upgrade-list").addEventListener("keydown", (event) => arrows(event, links()));
$("zoom").addEventListener("change", (event) => {
  zoom = event.target.value;
  dispatchEvent(new Event("hashchange"));
});
addEventListener("popstate", () => dispatchEvent(new Event("hashchange")));
