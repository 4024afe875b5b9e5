// The answer: a title, a chart of one column, and all columns as a table that sorts by a click.

import { measures, showChart } from "./chart.js";
import { byId, el, shown, spoken } from "./dom.js";

const ROWS_SHOWN = 200;

/** Rows that a page of a large result fetches; the rest is a link away. */
export const ROWS_FETCHED = 500;

let result;
let sorted;

/** Shows a result `{columns, rows, row_count, truncated}` with its title and a line of facts (texts and nodes). */
export function showResult(title, facts, answer) {
  result = { ...answer, columns: answer.columns.map((column) => column.name ?? column) };
  sorted = undefined;
  byId("result-title").textContent = title;
  byId("result-meta").replaceChildren(...facts.flatMap((fact, at) => (at ? [" · ", fact] : [fact])));
  byId("result-empty").hidden = true;
  const possible = measures(result);
  const select = byId("measure");
  select.replaceChildren(...possible.map(({ name }, at) => el("option", { value: at }, spoken(name))));
  byId("measure-label").hidden = possible.length < 2;
  select.onchange = () => showChart(result, possible[select.value]);
  showChart(result, possible[0]);
  showTable();
}

function showTable() {
  const { columns, rows } = result;
  const order = sorted ? [...rows].sort(comparing(sorted)) : rows;
  const numeric = columns.map((_, at) => rows.some((row) => typeof row[at] === "number"));
  const head = columns.map((name, at) => el("th", { scope: "col", class: numeric[at] && "number", "aria-sort": sortState(at) },
    el("button", { type: "button", onclick: () => sortBy(at) }, spoken(name))));
  const body = order.slice(0, ROWS_SHOWN).map((row) => el("tr", {}, ...row.map((cell, at) => (at === 0
    ? el("th", { scope: "row", class: numeric[0] && "number" }, shown(cell))
    : el("td", { class: numeric[at] && "number" }, shown(cell))))));
  byId("table").replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)));
  byId("table").hidden = false;
  byId("table-note").textContent = note();
}

function note() {
  const all = result.row_count ?? result.rows.length;
  const notes = [];
  if (all > ROWS_SHOWN) notes.push(`The table shows the first ${ROWS_SHOWN} of ${shown(all)} rows.`);
  if (result.truncated) notes.push(`The result was cut at ${shown(all)} rows by the query's budget.`);
  if (all === 0) notes.push("The query gave no rows.");
  return notes.join(" ");
}

function sortBy(column) {
  const descending = sorted?.column === column ? !sorted.descending : typeof result.rows[0]?.[column] === "number";
  sorted = { column, descending };
  showTable();
  byId("table").querySelectorAll("thead button")[column].focus();
}

function sortState(column) {
  if (sorted?.column !== column) return undefined;
  return sorted.descending ? "descending" : "ascending";
}

/** Missing values go last, whichever way. */
function comparing({ column, descending }) {
  return (a, b) => {
    const [left, right] = [a[column], b[column]];
    if (left === null || right === null) return (left === null) - (right === null);
    const order = typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right));
    return descending ? -order : order;
  };
}
