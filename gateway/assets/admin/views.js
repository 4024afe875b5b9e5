// What the parts of the page share: rows that change in place, pages, a question before something is done, and words.

import { byId, el, shown, toast } from "./dom.js";

/**
 * Makes the rows of a table equal to `items`, by key: what has not changed stays the same node, so that neither the focus
 * nor a selection is lost. With nothing to show, `none` is said.
 */
export function showRows(body, items, keyOf, cellsOf, none) {
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const rows = items.map((item) => {
    const key = String(keyOf(item));
    const row = known.get(key) ?? el("tr", { "data-key": key });
    const looks = JSON.stringify(item);
    if (row.looks !== looks) refill(row, cellsOf(item));
    row.looks = looks;
    return row;
  });
  if (rows.length === 0) rows.push(el("tr", { "data-key": "" }, el("td", { class: "none", colspan: "99" }, none)));
  const same = rows.length === body.rows.length && rows.every((row, index) => body.rows[index] === row);
  if (!same) body.replaceChildren(...rows);
}

function refill(row, cells) {
  const focused = [...row.querySelectorAll("a, button")].indexOf(document.activeElement);
  row.replaceChildren(...cells.map((cell) => (cell instanceof HTMLTableCellElement ? cell : el("td", {}, cell))));
  if (focused >= 0) row.querySelectorAll("a, button")[focused]?.focus();
}

export const number = (value) => el("td", { class: "number" }, typeof value === "number" ? shown(value) : value);

/** Facts as the terms and descriptions of a list; without those that are not known. */
export function showFacts(list, facts) {
  const looks = JSON.stringify(facts, (_, value) => (value instanceof Node ? value.textContent : value));
  if (list.looks === looks) return;
  list.looks = looks;
  const known = facts.filter(([, value]) => value !== undefined && value !== null && value !== "");
  list.replaceChildren(...known.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
}

/** Pages by cursor: `read(after)` answers with `next`. Goes back by remembering where the pages before began. */
export class Pages {
  #starts = [undefined];
  #next = null;

  constructor(node, changed) {
    this.back = el("button", { type: "button", onclick: () => { this.#starts.pop(); changed(); } }, "Back");
    this.on = el("button", { type: "button", onclick: () => { this.#starts.push(this.#next); changed(); } }, "Next");
    this.where = el("span", { class: "fine" });
    node.replaceChildren(this.back, this.where, this.on);
  }

  get after() { return this.#starts.at(-1); }

  reset() { this.#starts = [undefined]; }

  /** What the answer said about the next page. */
  told(next) {
    this.#next = next;
    this.back.disabled = this.#starts.length === 1;
    this.on.disabled = next === null || next === undefined;
    this.where.textContent = this.back.disabled && this.on.disabled ? "" : `page ${this.#starts.length}`;
    this.back.hidden = this.on.hidden = this.where.textContent === "";
  }
}

/**
 * Runs something at once and then every so often, one after the other, while the page can be seen; what goes wrong is
 * told by `failed`. Returns {stop, now}.
 */
export function repeat(run, everyMs, failed = () => {}) {
  let timer;
  let stopped = false;
  let busy = false;
  let again = false;
  const turn = async () => {
    clearTimeout(timer);
    if (stopped || document.hidden) return;
    if (busy) { again = true; return; }
    busy = true;
    try {
      await run();
    } catch (error) {
      if (!stopped) failed(error);
    }
    busy = false;
    if (stopped) return;
    timer = setTimeout(turn, again ? 0 : everyMs);
    again = false;
  };
  document.addEventListener("visibilitychange", turn);
  turn();
  return {
    now: turn,
    stop: () => {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", turn);
    },
  };
}

/** Asks before something is done that cannot be undone. Resolves with the answer. */
export function confirmed(text, yes) {
  const dialog = byId("confirm");
  byId("confirm-text").textContent = text;
  byId("confirm-yes").textContent = yes;
  return new Promise((resolve) => {
    const answer = (value) => { dialog.returnValue = value; dialog.close(); };
    byId("confirm-yes").onclick = () => answer("yes");
    byId("confirm-no").onclick = () => answer("no");
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
    dialog.returnValue = "no";
    dialog.showModal();
  });
}

/** A button that does something; what goes wrong is told. */
export function action(text, run, attributes = {}) {
  const button = el("button", { type: "button", ...attributes }, text);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await run();
    } catch (error) {
      toast(error.message, "error");
    }
    button.disabled = false;
  });
  return button;
}

/** Calls after the last of several calls in a row. */
export function calmly(run, ms = 200) {
  let timer;
  return () => { clearTimeout(timer); timer = setTimeout(run, ms); };
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const power = count < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(count) / 10));
  return `${short(count / 1024 ** power)} ${UNITS[power]}`;
}

/** A number with as many digits as say something: 1234567 is 1.23 M. */
export function short(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const [factor, unit] = value >= 1e9 ? [1e9, " G"] : value >= 1e6 ? [1e6, " M"] : value >= 1e4 ? [1e3, " k"] : [1, ""];
  const scaled = value / factor;
  const digits = scaled >= 100 ? 0 : scaled >= 10 ? 1 : 2;
  return `${Number(scaled.toFixed(digits)).toLocaleString("en")}${unit}`;
}

export const milliseconds = (value) => (value >= 1000 ? `${short(value / 1000)} s` : `${short(value)} ms`);

/** A time of RFC 3339 as a person reads it: the time of day, and the day unless it is today. */
export function when(text) {
  if (!text) return "–";
  const time = new Date(text);
  const day = time.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  const clock = time.toLocaleTimeString("en-GB", { hour12: false });
  return el("time", { datetime: text, title: text }, time.toDateString() === new Date().toDateString() ? clock : `${day} ${clock}`);
}
