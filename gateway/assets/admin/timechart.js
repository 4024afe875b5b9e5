// A chart of values over the last minutes that moves on with each new one. Drawn for the width there is; what the lines
// were at a time is read out by mouse, touch and arrow keys.

import { el, svg } from "./dom.js";
import { frame, niceTicks } from "./plot.js";

const WINDOW_MS = 300_000;
/** More than a window has, at a value every two seconds. */
const POINTS_MAX = 200;
const HEIGHT = 132;
const EDGE = { left: 66, right: 8, top: 8, bottom: 20 };

export class TimeChart {
  #points = [];
  #picked = null;
  #figure = el("figure");
  #values = el("p", { class: "legend" });

  /** `lines` are names; `format` makes a text of a value. */
  constructor(title, lines, format) {
    Object.assign(this, { title, lines, format });
    this.node = el("section", { class: "card chart" }, el("h3", {}, title), this.#figure, this.#values);
    this.#figure.addEventListener("pointermove", (event) => this.#pick(this.#timeAt(event)));
    this.#figure.addEventListener("pointerleave", () => this.#pick(null));
    this.#figure.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.draw()).observe(this.#figure);
  }

  /** Values at a time in milliseconds, one for each line; `null` where there is none. */
  push(at, values) {
    // A clock that begins anew is another process.
    if (this.#points.length && at <= this.#points.at(-1).at) this.#points = [];
    this.#points.push({ at, values });
    while (this.#points.length > POINTS_MAX || this.#points[0].at < at - WINDOW_MS) this.#points.shift();
    this.draw();
  }

  draw() {
    const width = Math.floor(this.#figure.clientWidth);
    if (width < 120) return;
    const had = this.#figure.contains(document.activeElement);
    this.#figure.replaceChildren(this.#drawing(width));
    if (had) this.#figure.firstChild.focus();
    this.#readOut();
  }

  #drawing(width) {
    const all = this.#points.flatMap(({ values }) => values.filter((value) => value !== null));
    const top = niceTicks(0, Math.max(...all, 0) || 1).at(-1);
    const ticks = [0, top / 2, top];
    const end = this.#points.at(-1)?.at ?? 0;
    const inner = { width: width - EDGE.left - EDGE.right, height: HEIGHT - EDGE.top - EDGE.bottom };
    const x = (at) => EDGE.left + (1 - (end - at) / WINDOW_MS) * inner.width;
    const y = (value) => EDGE.top + (1 - value / top) * inner.height;
    const grid = ticks.flatMap((tick) => [
      svg("line", { class: tick === 0 ? "axis" : "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick", x: EDGE.left - 6, y: y(tick), "text-anchor": "end", "dominant-baseline": "central" }, this.format(tick)),
    ]);
    const times = [["start", EDGE.left, "5 min ago"], ["end", width - EDGE.right, "now"]];
    const lines = this.lines.map((_, index) => svg("path", { class: `line line-${index}`, d: path(this.#points, index, x, y) }));
    const picked = this.#picked && svg("line", { class: "needle shown", x1: x(this.#picked.at), x2: x(this.#picked.at), y1: EDGE.top, y2: EDGE.top + inner.height });
    return frame(width, HEIGHT, ...grid,
      ...times.map(([anchor, at, text]) => svg("text", { class: "tick", x: at, y: HEIGHT - 4, "text-anchor": anchor }, text)),
      ...lines, picked);
  }

  #readOut() {
    const point = this.#picked ?? this.#points.at(-1);
    const end = this.#points.at(-1)?.at ?? 0;
    const texts = this.lines.map((name, index) => [name, point && point.values[index] !== null ? this.format(point.values[index]) : "–"]);
    const time = this.#picked ? `${Math.round((end - point.at) / 1000)} s ago` : "";
    this.#values.replaceChildren(...texts.map(([name, text], index) =>
      el("span", {}, el("i", { class: `swatch line-${index}`, "aria-hidden": "true" }), `${name} `, el("b", {}, text))), el("span", { class: "fine" }, time));
    this.#figure.firstChild.setAttribute("aria-label", `${this.title}, over five minutes. ${texts.map(([name, text]) => `${name} ${text}`).join(", ")}${time && `, ${time}`}. Arrow keys read earlier values.`);
  }

  #timeAt(event) {
    const box = this.#figure.getBoundingClientRect();
    const part = (event.clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right);
    return (this.#points.at(-1)?.at ?? 0) - (1 - part) * WINDOW_MS;
  }

  #pick(at) {
    const nearest = (best, point) => (!best || Math.abs(point.at - at) < Math.abs(best.at - at) ? point : best);
    this.#picked = at === null ? null : this.#points.reduce(nearest, null);
    this.draw();
  }

  #key(event) {
    const last = this.#points.length - 1;
    const from = this.#picked ? this.#points.indexOf(this.#picked) : last;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined && event.key !== "Escape") return;
    event.preventDefault();
    this.#picked = event.key === "Escape" ? null : this.#points[Math.max(0, Math.min(last, from + step))] ?? null;
    this.draw();
  }
}

/** A line with holes where there is no value. */
function path(points, index, x, y) {
  let pen = "M";
  let drawn = "";
  for (const { at, values } of points) {
    if (values[index] === null) { pen = "M"; continue; }
    drawn += `${pen}${x(at).toFixed(1)} ${y(values[index]).toFixed(1)}`;
    pen = "L";
  }
  return drawn;
}
