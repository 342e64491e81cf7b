// Blackouts over time: a point an upgrade, on a logarithmic scale, since a rollback's can be a thousand times longer.

import { $, blackout, clock, draw, OUTCOMES, versions } from "./dom.js";
import { arrows, link, rove } from "./upgrades.js";

/** The newest that fit side by side. */
const MOST = 60;
const HEIGHT = 190;
const [LEFT, RIGHT, TOP, BOTTOM] = [52, 14, 12, 26];

let shown = "";
let last = [];

const MARKS = {
  committed: (x, y) => draw("circle", { class: "mark committed", cx: x, cy: y, r: 4.5 }),
  "rolled-back": (x, y) => draw("path", { class: "mark rolled-back", d: `M${x} ${y - 6} ${x + 6} ${y + 5}H${x - 6}z` }),
  failed: (x, y) => draw("path", { class: "mark failed", d: `M${x - 4.5} ${y - 4.5} ${x + 4.5} ${y + 4.5}M${x + 4.5} ${y - 4.5} ${x - 4.5} ${y + 4.5}` }),
};

const decade = (power) => (power < 6 ? `${10 ** (power - 3)} µs` : power < 9 ? `${10 ** (power - 6)} ms` : `${10 ** (power - 9)} s`);

const points = () => [...$("chart-box").querySelectorAll("a")];

export function chart(upgrades, current) {
  const known = upgrades.filter((upgrade) => upgrade.blackout_ns > 0).slice(-MOST);
  last = [upgrades, current];
  // As wide as its place, so that words and points have the same size everywhere.
  const width = Math.max(240, $("chart-box").clientWidth);
  const text = JSON.stringify([known, current, width]);
  if (text === shown || !known.length) return;
  shown = text;
  const focused = points().indexOf(document.activeElement);
  const key = focused < 0 ? null : document.activeElement.dataset.key;
  const logs = known.map((upgrade) => Math.log10(upgrade.blackout_ns));
  const low = Math.floor(Math.min(...logs));
  const high = Math.max(low + 1, Math.ceil(Math.max(...logs)));
  const x = (index) => LEFT + (known.length < 2 ? 0.5 : index / (known.length - 1)) * (width - LEFT - RIGHT - 12) + 6;
  const y = (log) => HEIGHT - BOTTOM - ((log - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const picture = draw("svg", { width, height: HEIGHT, role: "group", "aria-label": "Blackouts, oldest first; arrow keys move, Enter opens" });
  for (let power = low; power <= high; power += 1) {
    picture.append(
      draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(power), y2: y(power) }),
      draw("text", { x: LEFT - 8, y: y(power) + 4, "text-anchor": "end" }, decade(power)),
    );
  }
  picture.append(draw("text", { x: x(0), y: HEIGHT - 6, "text-anchor": known.length < 2 ? "middle" : "start" }, clock(known[0].start_ms)));
  if (known.length > 1) picture.append(draw("text", { x: width - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, clock(known.at(-1).start_ms)));
  known.forEach((upgrade, index) => {
    const words = `${versions(upgrade)}, ${OUTCOMES[upgrade.outcome]?.[1] ?? "unknown"}, blackout ${blackout(upgrade)}, ${clock(upgrade.start_ms)}`;
    const point = draw("a", { href: link(upgrade), "aria-label": words, "data-key": upgrade.id, class: upgrade.id === current ? "current" : null });
    const at = [x(index), y(logs[index])];
    // A ring to see where the focus is, and to hit with a finger.
    point.append(draw("title", {}, words), draw("circle", { class: "ring", cx: at[0], cy: at[1], r: 10 }), (MARKS[upgrade.outcome] ?? MARKS.failed)(...at));
    picture.append(point);
  });
  $("chart-box").replaceChildren(picture);
  const again = points().find((point) => point.dataset.key === key);
  again?.focus();
  rove(points(), points().at(-1));
}

new ResizeObserver(() => last.length && chart(...last)).observe($("chart-box"));
$("chart-box").addEventListener("keydown", (event) => arrows(event, points()));
