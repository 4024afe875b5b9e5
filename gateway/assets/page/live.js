// A live query: its rows as they are, and then as they change. The gateway asks it once for all pages that follow it.

import { byId, el, shown, spoken } from "./dom.js";

const QUERY = "landing_next";
/** What its rows are sorted by: a difference says which rows are others, and not where they stand. */
const SORTED_BY = "lands_at";

let group;
let version;
let columns = [];
/** By the query's key, which is the first column. */
const rows = new Map();

/** Begins to follow, on a connection that knows nothing of it. */
export async function follow(connection) {
  group = undefined;
  try {
    ({ group } = await connection.command({ type: "subscribe", query: QUERY }));
  } catch (error) {
    byId("live-meta").textContent = error.message;
  }
}

/** Whether a frame is of this query; if so it was taken. */
export function takeLive(frame, connection) {
  if (group === undefined || frame.group !== group) return false;
  if (frame.type === "gap") followAnew(connection);
  else if (frame.type === "message") takeMessage(frame.message, connection);
  return true;
}

function takeMessage(message, connection) {
  if (message.type === "query.snapshot") {
    ({ version, columns } = message);
    rows.clear();
    for (const row of message.rows) rows.set(row[0], row);
    show(new Set());
    byId("live-meta").textContent = `all ${shown(rows.size)} rows, version ${shown(version)}`;
  } else if (message.type === "query.diff" && message.version > version) {
    if (message.since !== version) { followAnew(connection); return; }
    ({ version } = message);
    for (const [key] of message.delete) rows.delete(key);
    for (const row of message.upsert) rows.set(row[0], row);
    show(new Set(message.upsert.map((row) => row[0])));
    byId("live-meta").textContent = `${message.upsert.length} new, ${message.delete.length} gone, version ${shown(version)}`;
  } else if (message.type === "query.error") {
    byId("live-meta").textContent = message.message;
  }
}

/** Something was missed: the next snapshot has it. */
async function followAnew(connection) {
  const old = group;
  group = undefined;
  await connection.command({ type: "unsubscribe", group: old }).catch(() => {});
  await follow(connection);
}

function show(changed) {
  const at = columns.indexOf(SORTED_BY);
  const sorted = [...rows.values()].sort((a, b) => String(a[at]).localeCompare(String(b[at])));
  const head = columns.map((name, column) => el("th", { scope: "col", class: typeof sorted[0]?.[column] === "number" && "number" }, spoken(name)));
  const cellOf = (cell) => el("td", { class: typeof cell === "number" && "number" }, shown(cell));
  const body = sorted.map((row) => el("tr", { class: changed.has(row[0]) && "changed" },
    el("th", { scope: "row" }, shown(row[0])), ...row.slice(1).map(cellOf)));
  byId("live-table").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)));
  byId("live-table").hidden = false;
}
