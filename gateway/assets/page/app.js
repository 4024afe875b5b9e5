// The live page: wires the connection to the forms and to what is shown. Reading order: connection.js speaks the
// protocol; ask.js and compose.js are what a person does; jobs.js, feed.js, result.js, chart.js and live.js are what
// arrives.

import { asked, loadQueries, titleOf } from "./ask.js";
import { setUpGroups, setUpSend } from "./compose.js";
import { Connection } from "./connection.js";
import { byId, duration, shortId, shown, spoken, toast } from "./dom.js";
import { addMessage, addNote, setUpFeed } from "./feed.js";
import { aboutJob, jobsSeen, noteJob, setUpJobs, unfinished, updateJob } from "./jobs.js";
import { follow, takeLive } from "./live.js";
import { ROWS_FETCHED, showResult } from "./result.js";
import { showSnippets } from "./snippets.js";

const WORK_GROUP = "my_group";
const MEMBERS_EVERY_MS = 15_000;

const groups = new Set([WORK_GROUP]);
const counts = { sent: 0, received: 0 };
const connection = new Connection(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);

setUpFeed();
setUpJobs(cancel);
setUpSend(sendMessage);
const showGroups = setUpGroups(subscribe, unsubscribe);
showGroups(groups);
loadQueries().then(showFirstSnippets).catch((error) => { byId("ask-problem").textContent = error.message; });

byId("ask-form").addEventListener("submit", (event) => { event.preventDefault(); ask("execute_query"); });
byId("report").addEventListener("click", () => ask("generate_report"));
byId("connection-retry").addEventListener("click", () => connection.retryNow());
addEventListener("online", () => { if (state === "waiting") connection.retryNow(); });
setInterval(() => { if (!document.hidden && state === "open") countMembers(); }, MEMBERS_EVERY_MS);

// --- The connection ---

let state = "connecting";
let countdown;

connection.addEventListener("state", ({ detail }) => {
  ({ state } = detail);
  clearInterval(countdown);
  byId("connection").dataset.state = state;
  byId("connection-retry").hidden = state !== "waiting" && state !== "closed";
  const words = { connecting: "Connecting", open: "Connected", waiting: "Reconnecting", closed: "Closed" };
  byId("connection-state").textContent = words[state];
  if (state === "open") byId("connection-detail").textContent = detail.detail;
  if (state === "closed") byId("connection-detail").textContent = detail.detail;
  if (state === "waiting") {
    const tell = () => { byId("connection-detail").textContent = `${detail.detail}; again in ${duration(Math.max(0, detail.retryAt - Date.now()))}`; };
    tell();
    countdown = setInterval(tell, 200);
  }
});

connection.addEventListener("latency", ({ detail }) => {
  byId("connection-state").textContent = `Connected, ${duration(detail.ms)} away`;
});

connection.addEventListener("welcome", async ({ detail: { frame, lostMs } }) => {
  byId("connection-detail").textContent = frame.channel;
  addNote(lostMs === undefined ? `Connected as ${frame.channel}` : `Connected again as ${frame.channel}`);
  if (lostMs !== undefined) addNote(`Away for ${duration(lostMs)}. These groups keep no history: what was sent then is not here.`, "gap");
  for (const group of groups) {
    try {
      await connection.command({ type: "subscribe", group });
    } catch (error) {
      if (error.code === "unavailable") return;
      groups.delete(group);
      showGroups(groups);
      addNote(`${group}: ${error.message}`, "gap");
    }
  }
  follow(connection);
  addNote(`Listening to ${[...groups].join(", ") || "no group"}`);
  countMembers();
  for (const job of unfinished()) readRecord(job);
});

connection.addEventListener("push", ({ detail: { frame } }) => {
  if (takeLive(frame, connection)) return;
  if (frame.type === "message") receive(frame);
  else if (frame.type === "gap") addNote(`Gap in ${frame.group}: ${frame.missed ?? "an unknown number of"} messages missed (${spoken(frame.reason ?? "")})`, "gap");
  else if (frame.type === "joined" || frame.type === "left") addNote(`${frame.member} ${frame.type} ${frame.group}`);
  else if (frame.type === "closing") addNote("The gateway is closing; this page will come back by itself.", "gap");
  else if (frame.type === "error") addNote(`Error: ${frame.message ?? frame.code}`, "gap");
});

async function subscribe(group) {
  await connection.command({ type: "subscribe", group });
  groups.add(group);
  showGroups(groups);
  addNote(`Subscribed to ${group}`);
}

async function unsubscribe(group) {
  await connection.command({ type: "unsubscribe", group });
  groups.delete(group);
  showGroups(groups);
  addNote(`Unsubscribed from ${group}`);
}

// --- What a person does ---

async function sendMessage(group, message) {
  const accepted = await connection.command({ type: "group_send", group, message });
  sent(accepted, { title: message.type, kind: message.type });
  showSnippets("the message you sent", { group, message });
  toast(told(accepted, group));
}

async function ask(type) {
  byId("ask-problem").textContent = "";
  try {
    const { name, params, audience } = asked();
    const about = { title: titleOf(name), kind: type, params: Object.entries(params).map(([key, value]) => `${spoken(key)} ${value}`).join(", ") };
    const message = { type, query: name, params };
    const alone = audience === "me" && type === "execute_query";
    const frame = alone ? { type: "query", name, params } : { type: "group_send", group: WORK_GROUP, message };
    sent(await connection.command(frame), about);
    showSnippets(alone ? "the query, for you alone" : `the ${type} you sent`, alone ? { query: name, params } : { group: WORK_GROUP, message });
    if (!alone && !groups.has(WORK_GROUP)) toast(`The answer goes to ${WORK_GROUP}, which you do not listen to.`, "error");
  } catch (error) {
    byId("ask-problem").textContent = error.message;
  }
}

/** Before anything is done: what “Run query” would send. */
function showFirstSnippets() {
  const { name, params } = asked();
  showSnippets("what “Run query” sends", { group: WORK_GROUP, message: { type: "execute_query", query: name, params } });
}

async function cancel(job) {
  try {
    await connection.command({ type: "cancel", job });
  } catch (error) {
    toast(error.message, "error");
  }
}

function sent(accepted, about) {
  counts.sent += 1;
  flow("sent", counts.sent);
  if (typeof accepted.members === "number" && accepted.group === WORK_GROUP) flow("group", accepted.members);
  for (const { id, consumer } of accepted.jobs ?? []) {
    Object.assign(noteJob(id, { ...about, mine: true }), { consumer });
    flow("jobs", jobsSeen());
  }
}

function told({ members, jobs }, group) {
  if (jobs?.length) return `Stored as ${jobs.length === 1 ? "a job" : `${jobs.length} jobs`} of ${jobs.map((job) => job.consumer).join(", ")}`;
  return typeof members === "number" ? `Sent to ${group}: ${members} ${members === 1 ? "member" : "members"}` : `Sent to ${group}`;
}

// --- What arrives ---

function receive(frame) {
  counts.received += 1;
  flow("received", counts.received);
  addMessage(frame);
  const { message } = frame;
  if (message.job && message.type.startsWith("job.")) takeJobEvent(message, frame.group);
}

function takeJobEvent(event, group) {
  const { job, attempt, consumer } = event;
  noteJob(job);
  flow("jobs", jobsSeen());
  const change = {
    "job.started": () => ({ state: "running" }),
    "job.progress": () => ({ state: "running", progress: event }),
    "job.retry": () => ({ state: "scheduled", error: `attempt ${attempt} failed: ${event.error?.message ?? "no reason given"}` }),
    "job.failed": () => ({ state: "dead", error: event.error?.message ?? event.error?.code }),
    "job.cancelled": () => ({ state: "cancelled" }),
    "job.result": () => ({ state: "succeeded", elapsedMs: event.elapsed_ms, error: undefined }),
  }[event.type]?.();
  if (change) updateJob(job, { ...change, attempt, consumer });
  if (event.type === "job.result") takeResult(event, group);
}

function takeResult({ job, consumer, result, url, elapsed_ms }, group) {
  const link = url ?? result?.url;
  if (result?.rows) present(job, group, elapsed_ms, result);
  else if (link && (consumer === "reports" || link.includes("format="))) updateJob(job, { links: reportLinks(link) });
  else if (link) fetchResult(job, group, elapsed_ms, link);
}

function reportLinks(link) {
  const format = (name) => { const at = new URL(link, location.href); at.searchParams.set("format", name); return at.pathname + at.search; };
  return [{ text: "Open the report", href: format("html") }, { text: "CSV", href: format("csv"), download: "report.csv" }];
}

/** Results over 64 KiB travel as a link; the page reads the first rows of them. */
async function fetchResult(job, group, elapsedMs, link) {
  const at = new URL(link, location.href);
  at.searchParams.set("limit", ROWS_FETCHED);
  const answer = await fetch(at, { headers: { accept: "application/json" } });
  if (!answer.ok) { updateJob(job, { error: `the result cannot be read: ${answer.status}` }); return; }
  present(job, group, elapsedMs, await answer.json());
}

function present(job, group, elapsedMs, result) {
  const show = () => {
    const { title, params } = aboutJob(job);
    const rows = result.row_count ?? result.rows.length;
    const facts = [`${shown(rows)} ${rows === 1 ? "row" : "rows"}`, elapsedMs !== undefined && `in ${duration(elapsedMs)}`,
      group ? `sent to everybody in ${group}` : "sent to you alone", params, `job ${shortId(job)}`];
    showResult(title ?? "An answer to somebody's question", facts.filter(Boolean), result);
  };
  updateJob(job, { show });
  show();
  if (aboutJob(job).mine) bringIntoView(byId("result"));
}

/** On a small screen the answer is below the button that asked for it. */
function bringIntoView(node) {
  const { top } = node.getBoundingClientRect();
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (top < 0 || top > innerHeight * 0.6) node.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
}

/** After a reconnect: the events of a job may have gone by, its record has not. */
async function readRecord(id) {
  const answer = await fetch(`/v1/jobs/${id}`);
  if (!answer.ok) return;
  const record = await answer.json();
  updateJob(id, { state: record.state, attempt: record.attempt, progress: record.progress, consumer: record.consumer, error: record.error?.message });
  if (record.state === "succeeded" && record.result) takeResult({ job: id, consumer: record.consumer, url: record.result.url }, WORK_GROUP);
}

// --- The way of a message ---

function flow(station, number) {
  const node = byId(`flow-${station}`);
  node.querySelector("output").textContent = shown(number);
  node.classList.remove("pulse");
  requestAnimationFrame(() => node.classList.add("pulse"));
}

async function countMembers() {
  const answer = await fetch(`/v1/groups?prefix=${WORK_GROUP}&limit=10`);
  if (!answer.ok) return;
  const found = (await answer.json()).groups.find(({ group }) => group === WORK_GROUP);
  byId("flow-group").querySelector("output").textContent = shown(found?.members ?? 0);
}
