// Connections: found by user, address or channel, and ended.

import { api, at, query } from "./api.js";
import { byId, el, shown, toast } from "./dom.js";
import { Pages, action, calmly, confirmed, number, repeat, showRows, when } from "./views.js";

const PAGE = 50;
const EVERY_MS = 4000;
/** Names of groups that stand in a row; the others are counted. */
const GROUPS_SHOWN = 3;

let reading;
let pages;

export function setUpConnections() {
  pages = new Pages(byId("connections-pager"), () => reading?.now());
  byId("connections-text").addEventListener("input", calmly(() => { pages.reset(); reading?.now(); }));
  byId("connections-form").addEventListener("submit", (event) => event.preventDefault());
}

/** Shows them, or those of a text to begin with. */
export function showConnections(text) {
  if (text) byId("connections-text").value = text;
  pages.reset();
  reading = repeat(read, EVERY_MS, (error) => { byId("connections-count").textContent = error.message; });
}

export function hideConnections() {
  reading?.stop();
  reading = undefined;
}

async function read() {
  const text = byId("connections-text").value.trim();
  const { connections, looked_at, next } = await api(`connections${query({ text, after: pages.after, limit: PAGE })}`);
  pages.told(next);
  byId("connections-count").textContent = text ? `found ${shown(connections.length)} among ${shown(looked_at)}${next ? "; “Next” goes on" : ""}` : "WebSockets and event streams";
  showRows(byId("connections-rows"), connections, ({ channel }) => channel, row, text ? "none is found by this here" : "nobody is connected");
}

function row({ channel, user, peer, connected_at, groups, outbox_bytes, blocked }) {
  return [
    el("th", { scope: "row" }, el("code", {}, channel)), el("td", { class: "who", title: user }, user ?? "–"), peer, when(connected_at), namesOf(groups), number(outbox_bytes),
    el("span", { class: "badge", "data-state": blocked ? "scheduled" : undefined }, blocked ? "blocked" : "flows"),
    action("Disconnect", () => disconnect(channel, user), { class: "link", "aria-label": `Disconnect ${channel}` }),
  ];
}

function namesOf(groups) {
  const links = groups.slice(0, GROUPS_SHOWN).flatMap((group, index) => [index > 0 && ", ", el("a", { href: `#groups/${encodeURIComponent(group)}` }, group)]);
  const more = groups.length - GROUPS_SHOWN;
  return el("span", { class: "names" }, ...links, more > 0 && ` and ${shown(more)} more`, groups.length === 0 && "–");
}

async function disconnect(channel, user) {
  const whose = user ? ` of ${user}` : "";
  if (!await confirmed(`End the connection ${channel}${whose}? It is closed with 1008, and its client does not come back by itself.`, "Disconnect")) return;
  await api(at("connections", channel), { method: "DELETE" });
  toast(`${channel} is being closed`);
  reading?.now();
}
