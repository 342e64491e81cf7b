// Making elements, and words for numbers. Text from outside only ever goes through `textContent` or `setAttribute` of a
// fixed name: nothing that a sender says is markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null).map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

export const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

export const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Sets text only where it differs, so that a screen reader hears no news where there is none. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Makes the children of `parent` those of `items`, in order, and keeps the elements of items that stay, with their focus.
 * `key(item)` names an item, `create(item)` makes its element, `update(element, item)` says what may have changed.
 */
export function sync(parent, items, key, create, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let element = old.get(name);
    old.delete(name);
    if (!element) {
      element = create(item);
      element.dataset.key = name;
    }
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
  for (const element of old.values()) element.remove();
}

/** A list of names and values. */
export function terms(list, pairs) {
  list.replaceChildren(...pairs.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

const digits = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));

export function duration(ns) {
  if (ns >= 60e9) return `${Math.floor(ns / 60e9)} min ${Math.round((ns % 60e9) / 1e9)} s`;
  if (ns >= 1e9) return `${digits(ns / 1e9)} s`;
  if (ns >= 1e6) return `${digits(ns / 1e6)} ms`;
  if (ns >= 1e3) return `${digits(ns / 1e3)} µs`;
  return `${Math.round(ns)} ns`;
}

export function blackout(upgrade) {
  if (upgrade.blackout_ns === null) return null;
  return (upgrade.blackout_at_most ? "at most " : "") + duration(upgrade.blackout_ns);
}

export function amount(value, unit) {
  if (unit === "By") {
    const steps = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let step = 0;
    while (value >= 1024 && step < steps.length - 1) [value, step] = [value / 1024, step + 1];
    return `${step ? digits(value) : value} ${steps[step]}`;
  }
  if (unit === "s") return duration(value * 1e9);
  const plain = Number.isInteger(value) ? value.toLocaleString("en") : digits(value);
  return /^[{1]/.test(unit) || !unit ? plain : `${plain} ${unit}`;
}

export function ago(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  return s < 86400 ? `${Math.floor(s / 3600)} h ago` : `${Math.floor(s / 86400)} days ago`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

export const day = (ms) => new Date(ms).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** Outcomes in words, each with a sign of its own: not by colour alone. */
export const OUTCOMES = {
  pending: ["…", "under way"],
  committed: ["✓", "committed"],
  "rolled-back": ["↩", "rolled back"],
  failed: ["✕", "failed"],
};

export function badge(outcome) {
  const [sign, words] = OUTCOMES[outcome] ?? ["?", "unknown"];
  return make("span", { class: `badge ${outcome in OUTCOMES ? outcome : ""}` }, make("span", { "aria-hidden": "true" }, sign), words);
}

export const versions = (upgrade) => `${upgrade.from ?? "?"} → ${upgrade.to ?? "…"}`;
