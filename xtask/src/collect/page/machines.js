// The machines, and one of them opened: its numbers, instars and last log records.

import { $, ago, amount, badge, clock, day, make, say, sync, terms } from "./dom.js";

let open = null;
let shownKey = null;
let seen = new Map();

function facts(told, last) {
  const known = [];
  const role = told["instar.platform.role"];
  if (role) known.push(role === "host" ? "host" : role.replace("-", " "));
  const keyids = Number(told["instar.tdx.keyids"] ?? 0);
  if (keyids > 0) known.push(`TDX: ${keyids} KeyIDs${told["instar.tdx.module"] ? `, module ${told["instar.tdx.module"]}` : ""}`);
  else if (role === "host") known.push("TDX off");
  if (told["instar.sme"] === "active" || told["instar.sme"] === "present") known.push(`SME ${told["instar.sme"]}`);
  if (last) known.push(last.cores_flushed ? `${last.cores_flushed} cores flushed in the last upgrade` : "no flush in the last upgrade");
  return known.join(" · ");
}

const image = (instar) => `${instar.service || "unnamed"} ${instar.version}`.trim();

function card(machine) {
  const button = make("button", { type: "button", class: "card", "aria-controls": "machine" });
  button.append(
    make("span", { class: "card-title" }),
    make("span", { class: "card-host" }),
    make("span", { class: "card-state" }),
    make("span", { class: "card-facts" }),
    make("span", { class: "card-seen" }),
  );
  button.addEventListener("click", () => {
    open = open === machine.key ? null : machine.key;
    dispatchEvent(new Event("hashchange"));
  });
  return make("li", {}, button);
}

function update(item, machine, last) {
  const button = item.firstElementChild;
  const [title, host, state, told, when] = button.children;
  button.setAttribute("aria-expanded", String(open === machine.key));
  say(title, image(machine.running));
  say(host, machine.host);
  const generation = machine.running.generation;
  state.replaceChildren(
    make("span", { class: "generation" }, generation === null ? "no generation" : `generation ${generation}`),
    ...(machine.last ? [make("span", { class: "last" }, "last upgrade ", badge(machine.last))] : []),
  );
  say(told, facts(machine.facts, last));
  seen.set(when, machine.last_seen_ms);
}

/** Says again how long ago each was heard of. */
export function tick(skew) {
  for (const [element, ms] of seen) say(element, `heard of ${ago(Date.now() - skew - ms)}`);
}

export async function details(fleet, ask) {
  if (!fleet.machines.some((machine) => machine.key === open)) open = null;
  return open === null ? null : ask(`/api/machines/${open}`);
}

function numbers(told) {
  const sum = (metric, of = "") => {
    const found = told.filter((number) => number.metric === metric && number.of.includes(of));
    return found.length ? found.reduce((all, number) => all + number.value, 0) : null;
  };
  const rows = [
    ["Uptime", sum("system.uptime"), "s"],
    ["Memory used", sum("system.memory.usage", "used"), "By"],
    ["Memory free", sum("system.memory.usage", "free"), "By"],
    ["Cores", sum("system.cpu.logical.count"), ""],
    ["Packets dropped", sum("system.network.packet.dropped"), ""],
    ["Reports dropped", sum("instar.telemetry.requests", "dropped"), ""],
    ["Private pages", sum("instar.private.pages"), ""],
    ["Machine checks", sum("instar.machine_checks"), ""],
    ["Floor", sum("instar.security_floor"), ""],
  ];
  return rows.filter(([, value]) => value !== null).map(([name, value, unit]) => [name, amount(value, unit)]);
}

export function show(fleet, machine, skew) {
  seen = new Map();
  const machines = [...fleet.machines].sort((a, b) => (a.host < b.host ? -1 : 1));
  sync($("machine-list"), machines, (item) => item.key, card, (element, item) =>
    update(
      element,
      item,
      fleet.upgrades.findLast((upgrade) => upgrade.host === item.host && upgrade.outcome !== "pending"),
    ),
  );
  tick(skew);
  $("machine").hidden = machine === null;
  if (machine === null) {
    shownKey = null;
    return;
  }
  const summary = fleet.machines.find((item) => item.key === machine.key);
  say($("machine-title"), machine.host);
  terms($("numbers"), numbers(machine.numbers));
  const running = summary?.running.instance;
  sync(
    $("generations"),
    [...machine.generations].reverse(),
    (instar) => instar.instance,
    () => make("tr", {}, make("th", { scope: "row" }), make("td"), make("td"), make("td", {}, make("code"))),
    (row, instar) => {
      const [generation, name, first, chain] = row.children;
      const gaveBack = fleet.upgrades.some((one) => one.successor === instar.instance && one.outcome === "rolled-back");
      const state = instar.instance === running ? " (runs)" : gaveBack ? " (gave the machine back)" : "";
      say(generation, `${instar.generation ?? "–"}${state}`);
      row.classList.toggle("runs", instar.instance === running);
      say(name, image(instar));
      say(first, day(instar.first_seen_ms + skew));
      say(chain.firstElementChild, instar.measurement || "not told");
    },
  );
  logs(machine.logs);
  if (shownKey !== machine.key) {
    shownKey = machine.key;
    $("log-box").scrollTop = $("log-box").scrollHeight;
    $("machine-title").focus();
  }
}

function logs(lines) {
  const box = $("log-box");
  const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
  $("logs").replaceChildren(
    ...lines.map((line) =>
      make(
        "li",
        { class: ["ERROR", "WARN"].includes(line.severity) ? line.severity.toLowerCase() : null },
        make("time", {}, clock(line.time_ms)),
        make("span", { class: "severity" }, line.severity),
        make("span", { class: "message" }, `${line.target}: ${line.message}`),
      ),
    ),
  );
  if (atEnd) box.scrollTop = box.scrollHeight;
}

/** Closes what is open; whether there was something. */
export function close() {
  if (open === null) return false;
  const button = document.querySelector(`#machine-list [data-key="${Number(open)}"] button`);
  open = null;
  $("machine").hidden = true;
  button?.setAttribute("aria-expanded", "false");
  button?.focus();
  return true;
}

$("machine-close").addEventListener("click", close);
