// What all charts are drawn with.

import { svg } from "./dom.js";

/** The drawing of a chart; it can be reached by keyboard. */
export function frame(width, height, ...content) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", tabindex: "0" }, ...content);
}

/** About five round numbers from at or below `low` to at or above `high`. */
export function niceTicks(low, high) {
  const rough = (high - low || 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const ticks = [];
  for (let at = Math.floor(low / step); at * step < high + step; at++) ticks.push(Number((at * step).toPrecision(12)));
  return ticks;
}
