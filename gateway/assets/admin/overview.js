// How the gateway is: numbers, how they have changed over the last minutes, what is not ready, what was refused.

import { byId, el, shown } from "./dom.js";
import { TimeChart } from "./timechart.js";
import { bytes, milliseconds, number, short, showRows } from "./views.js";

/** Times are those of so many readings: of one there are too few to say what is usual. */
const READINGS = 6;

let readings = [];
/** What had been refused before the page was opened. */
let refusedBefore;

const perSecond = (value) => `${short(value)}/s`;

/** Title, lines, and how they are written; `of` gives a value for each line from a reading and what has changed since the last. */
const CHARTS = [
  ["Deliveries", ["to members"], perSecond, ({ rate }) => [rate("deliveries")]],
  ["Messages taken", ["to groups", "to channels"], perSecond, ({ rate }) => [rate("group_sends"), rate("sends")]],
  ["Bytes to sockets", ["written"], (value) => `${bytes(value)}/s`, ({ rate }) => [rate("socket_bytes")]],
  ["Connections", ["open"], short, ({ values }) => [values.connections ?? null]],
  ["Time to answer HTTP", ["half within", "99 % within"], milliseconds, ({ times }) => [times("http", 0.5), times("http", 0.99)]],
  ["Lateness of the runtimes", ["half within", "99 % within"], milliseconds, ({ times }) => [times("loop_lag", 0.5), times("loop_lag", 0.99)]],
  ["Jobs", ["stored", "succeeded", "failed"], perSecond, ({ rate }) => [rate("jobs_enqueued"), rate("jobs_succeeded"), sum(rate("jobs_retried"), rate("jobs_dead"))]],
  ["Time of jobs", ["wait, 99 %", "run, 99 %"], milliseconds, ({ times }) => [times("job_pickup", 0.99), times("job_run", 0.99)]],
].map(([title, lines, format, of]) => ({ chart: new TimeChart(title, lines, format), of }));

export function setUpOverview() {
  byId("charts").replaceChildren(...CHARTS.map(({ chart }) => chart.node));
}

/** A reading of the gateway. */
export function takeReading(reading) {
  if (readings.length && reading.at_ms <= readings.at(-1).at_ms) readings = [];
  const change = changeTo(reading);
  readings.push(reading);
  if (readings.length > READINGS) readings.shift();
  refusedBefore ??= new Map(reading.refusals.map(({ what, count }) => [what, count]));
  for (const { chart, of } of CHARTS) chart.push(reading.at_ms, of(change));
  showTiles(reading, change);
  showParts(reading.parts);
  showRows(byId("refusals"), reading.refusals, ({ what }) => what, ({ what, count }) =>
    [what, number(count), number(Math.max(0, count - (refusedBefore.get(what) ?? 0)))], "nothing yet");
}

/** What has changed since the readings before. */
function changeTo({ at_ms, values, times, refusals }) {
  const last = readings.at(-1);
  const first = readings[0];
  const seconds = last && (at_ms - last.at_ms) / 1000;
  const total = (all) => all.reduce((sum, { count }) => sum + count, 0);
  return {
    values,
    rate: (name) => (last && values[name] !== undefined ? Math.max(0, values[name] - (last.values[name] ?? 0)) / seconds : null),
    refused: last ? Math.max(0, total(refusals) - total(last.refusals)) / seconds : null,
    times: (name, part) => (first ? quantile(times[name], first.times[name], part) : null),
  };
}

/** The time, in milliseconds, that a part of what was measured between two readings was within; `null` if nothing was. */
function quantile({ bounds, counts }, before, part) {
  const between = counts.map((count, index) => count - (before.counts[index] ?? 0));
  const all = between.at(-1) ?? 0;
  if (all <= 0) return null;
  const at = between.findIndex((count) => count >= all * part);
  if (at >= bounds.length) return bounds.at(-1) * 1000;
  const [low, below] = at === 0 ? [0, 0] : [bounds[at - 1], between[at - 1]];
  return (low + (bounds[at] - low) * ((all * part - below) / (between[at] - below))) * 1000;
}

const sum = (a, b) => (a === null && b === null ? null : (a ?? 0) + (b ?? 0));

function showTiles({ values, jobs, memory_bytes }, { rate, refused }) {
  const inState = (state) => jobs.filter((job) => job.state === state).reduce((sum, { jobs: count }) => sum + count, 0);
  const perTime = (value) => (value === null ? "–" : perSecond(value));
  const tiles = [
    ["connections", shown(values.connections)],
    ["groups", shown(values.groups)],
    ["memberships", shown(values.memberships)],
    ["deliveries", perTime(rate("deliveries"))],
    ["to sockets", rate("socket_bytes") === null ? "–" : `${bytes(rate("socket_bytes"))}/s`],
    ["refused", perTime(refused)],
    ["jobs that wait", shown(inState("ready") + inState("scheduled"))],
    ["jobs that run", shown(inState("running"))],
    ["memory", bytes(memory_bytes)],
    ["broker", values.broker_up === undefined ? "none" : values.broker_up ? "there" : "lost"],
  ];
  const list = byId("tiles");
  if (!list.children.length) list.append(...tiles.map(([name]) => el("div", {}, el("dt", {}, name), el("dd", { id: `tile-${name.replaceAll(" ", "-")}` }))));
  tiles.forEach(([, text], index) => { list.children[index].lastChild.textContent = text; });
  byId("tile-broker").classList.toggle("bad", values.broker_up === 0);
}

function showParts(parts) {
  byId("parts").replaceChildren(...parts.map(({ part, problem }) =>
    el("li", { "data-state": problem ? "closed" : "open" }, el("span", { class: "dot", "aria-hidden": "true" }), el("b", {}, part), el("span", { class: problem ? "problem" : "fine" }, problem ?? "ready"))));
}
