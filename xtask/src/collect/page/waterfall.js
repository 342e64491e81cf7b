// One upgrade's spans: a row each, with a bar in its place in time.

import { $, duration, make } from "./dom.js";

/**
 * From where to where time is drawn, in nanoseconds since the beginning, and what is called 0 there: all of it, or around
 * a part of the blackout, counted from when that begins.
 */
function range(upgrade, zoom) {
  const whole = Math.max(upgrade.duration_ns, 1);
  const part = upgrade.blackout[zoom];
  if (!part || part[0] >= part[1]) return [0, whole, 0];
  const margin = (part[1] - part[0]) / 10;
  return [Math.max(0, part[0] - margin), Math.min(whole, part[1] + margin), part[0]];
}

/** Steps of 1, 2 or 5 times a power of ten: some four of them. */
function ticks(from, to) {
  const rough = (to - from) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => power * factor >= rough) ?? 10);
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  return found;
}

export function waterfall(upgrade, zoom) {
  const [from, to, origin] = range(upgrade, zoom);
  const place = (ns) => Math.min(100, Math.max(0, ((ns - from) / (to - from)) * 100));
  const isOutside = (start, end) => end < from || start > to;
  const marks = ticks(from - origin, to - origin).map((at) => at + origin);
  const put = (element, start, end) => {
    element.style.left = `${place(start)}%`;
    element.style.width = `${place(end) - place(start)}%`;
    return element;
  };
  const label = (at) => {
    const mark = make("span", { class: place(at) > 88 ? "tick last" : "tick" }, at < origin ? `−${duration(origin - at)}` : at === origin ? "0" : duration(at - origin));
    mark.style.left = `${place(at)}%`;
    return mark;
  };
  $("axis").replaceChildren(...marks.map(label));
  const track = (row) => {
    const box = make("div", { class: "track" });
    for (const at of marks) {
      const line = make("i", { class: "grid" });
      line.style.left = `${place(at)}%`;
      box.append(line);
    }
    for (const [start, end] of upgrade.blackout.filter((part) => !isOutside(...part))) box.append(put(make("i", { class: "blackout" }), start, end));
    const end = row.start_ns + row.duration_ns;
    if (end < from) box.append(make("span", { class: "outside before" }, "◂ before"));
    else if (row.start_ns > to) box.append(make("span", { class: "outside after" }, "after ▸"));
    else box.append(put(make("i", { class: `bar ${row.core === null ? "" : "core"} ${row.by}` }), row.start_ns, end));
    // Beside the bar, where there is more room; the whole upgrade's error stands above.
    if (row.error && row.by !== "both") {
      const note = make("span", { class: "note", title: row.error }, row.error);
      if (place(end) < 50) note.style.left = `${Math.max(place(end), 0) + 1}%`;
      else note.style.right = `${101 - place(row.start_ns)}%`;
      box.append(note);
    }
    return box;
  };
  // Of flushes that are not in this time, the span of all of them is enough.
  const shown = upgrade.rows.filter((row) => row.core === null || !isOutside(row.start_ns, row.start_ns + row.duration_ns));
  $("spans").replaceChildren(...shown.map((row) => line(row, track(row))));
}

const WHO = { both: "", predecessor: "predecessor", successor: "successor" };

function line(row, track) {
  const name = row.core === null ? row.name.replaceAll("_", " ") : `core ${row.core}`;
  const about = row.attributes.map(([key, value]) => `${key}: ${value}`).join("\n");
  const head = make("th", { scope: "row", title: about || null }, make("span", { class: "name" }, name));
  head.style.setProperty("--depth", Math.min(row.depth, 4));
  const who = row.generation === null ? WHO[row.by] : `${WHO[row.by]}, generation ${row.generation}`;
  if (row.by !== "both") head.append(make("span", { class: "unseen" }, `, ${who}`));
  const begins = make("span", { class: "unseen" }, `begins after ${duration(row.start_ns)}`);
  return make("tr", { class: row.by, "data-span": row.core === null ? row.name : "core" }, head, make("td", {}, begins, track), make("td", { class: "number" }, duration(row.duration_ns)));
}
