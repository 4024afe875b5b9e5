// A chart of a result: bars for names, a line for numbers that ascend. Drawn for the width there is; every value can
// be reached by mouse, touch and arrow keys, and is read out below the chart.

import { byId, el, shown, spoken, svg } from "./dom.js";
import { frame, niceTicks } from "./plot.js";

const BARS_MAX = 15;
const POINTS_MAX = 400;
const BAR = { height: 20, gap: 7 };
const LINE = { height: 250, left: 46, right: 16, top: 14, bottom: 40 };

let current;

/** The columns that can be drawn: those with numbers, but for the first, which names the row. */
export function measures({ columns, rows }) {
  return columns.map((name, index) => ({ name, index }))
    .filter(({ index }) => index > 0 && rows.some((row) => typeof row[index] === "number") && rows.every((row) => row[index] === null || typeof row[index] === "number"));
}

/** Draws one column of a result; with `null` there is nothing to draw. */
export function showChart(result, measure) {
  current = measure ? { result, measure } : null;
  byId("chart").hidden = !current;
  draw();
}

new ResizeObserver(() => draw()).observe(byId("chart"));

function draw() {
  const figure = byId("chart");
  const width = Math.floor(figure.clientWidth);
  if (!current || width < 120) return;
  if (current.width === width) return;
  current.width = width;
  const { result: { rows, columns }, measure } = current;
  const data = rows.map((row, at) => ({ label: shown(row[0]), x: row[0], value: row[measure.index], row, at })).filter(({ value }) => value !== null);
  const numeric = data.length > 3 && data.length <= POINTS_MAX && data.every(({ x }, at) => typeof x === "number" && (at === 0 || x > data[at - 1].x));
  const picked = numeric ? data : data.slice(0, BARS_MAX);
  const { node, marks } = numeric ? line(picked, width, columns[0]) : bars(picked, width);
  const caption = el("figcaption", { "aria-live": "polite" });
  describe(node, picked, measure.name, columns[0], numeric ? "Line chart" : "Bar chart");
  const cut = picked.length < data.length ? `; the first ${picked.length} of ${rows.length} rows` : "";
  readOut(node, marks, picked, columns, caption, `${spoken(measure.name)} by ${spoken(columns[0])}${cut}`);
  figure.replaceChildren(node, caption);
}

function bars(data, width) {
  const size = Math.max(...data.map(({ label }) => label.length));
  const left = Math.min(Math.ceil(size * 7.2) + 10, Math.floor(width * 0.42));
  const fits = Math.floor((left - 10) / 7.2);
  const low = Math.min(0, ...data.map(({ value }) => value));
  const high = Math.max(0, ...data.map(({ value }) => value));
  const room = width - left - 58 - (low < 0 ? 44 : 0);
  const scale = (value) => left + (low < 0 ? 44 : 0) + ((value - low) / (high - low || 1)) * room;
  const step = BAR.height + BAR.gap;
  const height = data.length * step + 4;
  const marks = data.map(({ label, value }, at) => {
    const y = at * step + 2;
    const [from, to] = [scale(Math.min(0, value)), scale(Math.max(0, value))];
    const text = label.length > fits ? `${label.slice(0, fits - 1)}…` : label;
    return svg("g", { class: "mark" },
      svg("rect", { class: "hit", x: 0, y: y - BAR.gap / 2, width, height: step }),
      svg("text", { class: "label", x: left - 10, y: y + BAR.height / 2, "text-anchor": "end", "dominant-baseline": "central" }, text),
      svg("rect", { class: value < 0 ? "bar negative" : "bar", x: from, y, width: Math.max(1, to - from), height: BAR.height, rx: 3 }),
      svg("text", { class: "value", x: value < 0 ? from - 6 : to + 6, y: y + BAR.height / 2, "text-anchor": value < 0 ? "end" : "start", "dominant-baseline": "central" }, shown(value)));
  });
  return { node: frame(width, height, low < 0 && svg("line", { class: "axis", x1: scale(0), x2: scale(0), y1: 0, y2: height }), ...marks), marks };
}

function line(data, width, name) {
  const low = Math.min(0, ...data.map(({ value }) => value));
  const ticks = niceTicks(low, Math.max(...data.map(({ value }) => value)));
  const top = ticks.at(-1);
  const [first, last] = [data[0].x, data.at(-1).x];
  const inner = { width: width - LINE.left - LINE.right, height: LINE.height - LINE.top - LINE.bottom };
  const x = (value) => LINE.left + ((value - first) / (last - first)) * inner.width;
  const y = (value) => LINE.top + (1 - (value - ticks[0]) / (top - ticks[0])) * inner.height;
  const path = data.map(({ x: at, value }, index) => `${index ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const every = Math.ceil(data.length / Math.max(2, Math.floor(inner.width / 44)));
  const half = inner.width / Math.max(1, data.length - 1) / 2;
  const grid = ticks.map((tick) => [
    svg("line", { class: tick === 0 ? "axis" : "grid", x1: LINE.left, x2: width - LINE.right, y1: y(tick), y2: y(tick) }),
    svg("text", { class: "tick", x: LINE.left - 8, y: y(tick), "text-anchor": "end", "dominant-baseline": "central" }, shown(tick)),
  ]).flat();
  const marks = data.map(({ x: at, value, label }, index) => svg("g", { class: "mark" },
    svg("rect", { class: "hit", x: x(at) - half, y: LINE.top, width: half * 2, height: inner.height + 20 }),
    svg("line", { class: "needle", x1: x(at), x2: x(at), y1: LINE.top, y2: LINE.top + inner.height }),
    svg("circle", { class: "point", cx: x(at), cy: y(value), r: data.length > 60 ? 2 : 4 }),
    index % every === 0 && svg("text", { class: "tick", x: x(at), y: LINE.top + inner.height + 16, "text-anchor": "middle" }, label)));
  return {
    node: frame(width, LINE.height, ...grid,
      svg("path", { class: "area", d: `${path}L${x(last)} ${y(ticks[0])}L${x(first)} ${y(ticks[0])}Z` }),
      svg("path", { class: "line", d: path }), ...marks,
      svg("text", { class: "tick", x: LINE.left + inner.width / 2, y: LINE.height - 4, "text-anchor": "middle" }, spoken(name))),
    marks,
  };
}

function describe(node, data, measure, label, kind) {
  const highest = data.reduce((best, item) => (item.value > best.value ? item : best), data[0]);
  node.setAttribute("aria-label", data.length === 0 ? "An empty chart"
    : `${kind} of ${spoken(measure)} by ${spoken(label)}, ${data.length} values; highest: ${highest.label} with ${shown(highest.value)}. Arrow keys read the values.`);
}

/** Hover, touch and arrow keys pick a mark; the caption tells its whole row. */
function readOut(node, marks, data, columns, caption, rest) {
  let active = -1;
  const pick = (index) => {
    marks[active]?.classList.remove("active");
    active = index;
    marks[active]?.classList.add("active");
    caption.replaceChildren(...(active < 0 ? [rest]
      : columns.map((name, at) => (at === 0 ? el("b", {}, shown(data[active].row[0])) : el("span", {}, `${spoken(name)} `, el("b", {}, shown(data[active].row[at])))))));
  };
  marks.forEach((mark, index) => {
    mark.addEventListener("pointerenter", () => pick(index));
    mark.addEventListener("click", () => pick(index));
  });
  node.addEventListener("pointerleave", () => pick(-1));
  node.addEventListener("blur", () => pick(-1));
  node.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (step) pick((active + step + marks.length) % marks.length);
    else if (event.key === "Home") pick(0);
    else if (event.key === "End") pick(marks.length - 1);
    else if (event.key === "Escape") pick(-1);
    else return;
    event.preventDefault();
  });
  pick(-1);
}
