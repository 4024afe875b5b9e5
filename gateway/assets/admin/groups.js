// Groups: a page of them by prefix, and one with its members, its history and a live tail.

import { api, at, query } from "./api.js";
import { byId, el, nameProblem, shown, toast } from "./dom.js";
import { stopTail, tail } from "./tail.js";
import { Pages, calmly, number, repeat, showFacts, showRows } from "./views.js";

const PAGE = 100;
const MEMBERS_PAGE = 50;
const HISTORY_SHOWN = 50;
const LIST_EVERY_MS = 4000;
const GROUP_EVERY_MS = 3000;

let reading;
let list;
let members;
let open;

export function setUpGroups() {
  list = new Pages(byId("groups-pager"), () => reading?.now());
  members = new Pages(byId("members-pager"), () => reading?.now());
  byId("groups-prefix").addEventListener("input", calmly(() => { list.reset(); reading?.now(); }));
  byId("groups-form").addEventListener("submit", (event) => event.preventDefault());
  byId("group-open").addEventListener("click", () => {
    const name = byId("groups-prefix").value.trim();
    const problem = nameProblem(name);
    if (problem) toast(problem, "error");
    else location.hash = `#groups/${name}`;
  });
}

/** Shows the list, or one group by its name. */
export function showGroups(name) {
  byId("group-list").hidden = Boolean(name);
  byId("group").hidden = !name;
  if (name) showGroup(name);
  else reading = repeat(readList, LIST_EVERY_MS, (error) => { byId("groups-count").textContent = error.message; });
}

export function hideGroups() {
  reading?.stop();
  reading = open = undefined;
  stopTail();
}

async function readList() {
  const prefix = byId("groups-prefix").value.trim();
  const { groups, next } = await api(`groups${query({ prefix, after: list.after, limit: PAGE })}`);
  list.told(next);
  showRows(byId("groups-rows"), groups, ({ group }) => group, ({ group, members: count }) =>
    [el("th", { scope: "row" }, el("a", { href: `#groups/${encodeURIComponent(group)}` }, group)), number(count)],
  prefix ? "no group with members begins with this" : "no group has members");
  byId("groups-count").textContent = prefix ? `with members, beginning with “${prefix}”` : "those with members";
}

function showGroup(name) {
  open = name;
  members.reset();
  byId("group-title").textContent = name;
  byId("history").replaceChildren();
  byId("history-note").textContent = "";
  byId("group-facts").replaceChildren();
  byId("members-rows").replaceChildren();
  // Whatever stands in the address comes this far.
  const problem = nameProblem(name);
  if (problem) { byId("history-note").textContent = problem; return; }
  reading = repeat(() => readGroup(name), GROUP_EVERY_MS, (error) => { byId("history-note").textContent = error.message; });
  tail(name);
}

async function readGroup(name) {
  const [group, page] = await Promise.all([
    api(at("groups", name)),
    api(`${at("groups", name, "members")}${query({ after: members.after, limit: MEMBERS_PAGE })}`),
  ]);
  if (open !== name) return;
  showFacts(byId("group-facts"), [["members", shown(group.members)], ["epoch", group.epoch], ["last offset", group.offset === null ? null : shown(group.offset)]]);
  members.told(page.next);
  showRows(byId("members-rows"), page.members, (channel) => channel, (channel) =>
    [el("a", { href: `#connections/${encodeURIComponent(channel)}` }, channel)], "nobody");
  await readHistory(name, group);
}

async function readHistory(name, { epoch, offset }) {
  if (epoch === null || offset === null) {
    byId("history-note").textContent = "This group keeps none ([[group]] history).";
    return;
  }
  // Nothing new: what is unfolded stays so.
  if (byId("history").looks === `${name} ${epoch} ${offset}`) return;
  const after = Math.max(0, offset - HISTORY_SHOWN);
  const { messages } = await api(`${at("groups", name, "history")}${query({ after, limit: HISTORY_SHOWN })}`);
  if (open !== name) return;
  byId("history").looks = `${name} ${epoch} ${offset}`;
  byId("history-note").textContent = messages.length ? `the last ${shown(messages.length)}, newest first` : "empty";
  byId("history").replaceChildren(...messages.reverse().map(historyEntry));
}

function historyEntry({ offset, message }) {
  const body = el("pre", { tabindex: "0" });
  const unfold = () => { if (!body.textContent) body.textContent = JSON.stringify(message, null, 2); };
  return el("li", {}, el("details", { ontoggle: unfold },
    el("summary", {}, el("time", {}, `#${offset}`), el("span", { class: "type" }, message.type), el("span", { class: "preview" }, JSON.stringify(message).slice(0, 160))), body));
}
