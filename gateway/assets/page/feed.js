// The live list of messages: newest first, bounded, filtered, and paused without losing count.

import { byId, clock, el, shortId } from "./dom.js";

const KEPT = 200;
const PREVIEW_CHARS = 160;

let entries = [];
let held = 0;
let paused = false;
let drawing = false;
let total = 0;

export function setUpFeed() {
  byId("feed-filter").addEventListener("input", draw);
  byId("feed-clear").addEventListener("click", () => { entries = []; held = 0; draw(); });
  byId("feed-pause").addEventListener("click", (event) => {
    paused = !paused;
    event.currentTarget.setAttribute("aria-pressed", String(paused));
    event.currentTarget.textContent = paused ? "Resume" : "Pause";
    if (!paused) held = 0;
    draw();
  });
  draw();
}

/** Begins anew, as for another group. */
export function clearFeed() {
  [entries, held, total] = [[], 0, 0];
  draw();
}

/** A message that arrived. */
export function addMessage(frame) {
  total += 1;
  if (continues(entries[0], frame)) {
    const { times } = entries.shift();
    held = Math.max(0, held - 1);
    add({ kind: "job", from: frame.group ?? "direct", frame, times: times + 1 });
    return;
  }
  add({ kind: frame.message.type?.startsWith("job.") ? "job" : "message", from: frame.group ?? "direct", frame });
}

/** Progress of one job is one line that counts, or a report would push everything else off the list. */
function continues(entry, { message }) {
  return message.type === "job.progress" && entry?.frame?.message.type === "job.progress" && entry.frame.message.job === message.job;
}

/** Something that happened to the connection. `gap` is loss, and looks like it. */
export function addNote(text, kind = "note") {
  add({ kind, text });
}

function add(entry) {
  entry.at = clock();
  entry.times ??= 1;
  entry.search = (entry.text ?? `${entry.from} ${JSON.stringify(entry.frame.message)}`).toLowerCase();
  entries.unshift(entry);
  if (paused) held += 1;
  // What is held while paused counts as kept: a long pause costs no more memory than none.
  if (entries.length > KEPT) entries.length = KEPT;
  held = Math.min(held, KEPT);
  if (!drawing) {
    drawing = true;
    requestAnimationFrame(draw);
  }
}

function draw() {
  drawing = false;
  const wanted = byId("feed-filter").value.trim().toLowerCase();
  const visible = entries.slice(paused ? held : 0).filter((entry) => entry.search.includes(wanted));
  const nodes = visible.map((entry) => (entry.node ??= render(entry)));
  byId("messages").replaceChildren(...(nodes.length ? nodes : [el("li", { class: "none" }, wanted ? "nothing matches" : "nothing yet: send something")]));
  byId("feed-count").textContent = paused ? `paused, ${held === KEPT ? `${KEPT} or more` : held} new` : total === 0 ? "none yet" : `${total.toLocaleString("en")} so far`;
}

function render(entry) {
  const when = el("time", {}, entry.at);
  if (!entry.frame) return el("li", { class: entry.kind }, when, el("span", { class: "text" }, entry.text));
  const { message } = entry.frame;
  const json = JSON.stringify(message);
  const body = el("pre", { tabindex: "0" });
  const details = el("details", { ontoggle: () => { if (!body.textContent) body.textContent = JSON.stringify(entry.frame, null, 2); } },
    el("summary", {}, when, el("span", { class: "type" }, message.type, entry.times > 1 && el("span", { class: "times" }, ` × ${entry.times}`)), el("span", { class: "from" }, entry.from), el("span", { class: "preview" }, summary(message, json))),
    body);
  return el("li", { class: entry.kind }, details);
}

function summary(message, json) {
  const job = message.job ? `${shortId(message.job)} ` : "";
  switch (message.type) {
    case "job.progress": return `${job}${message.done} of ${message.total ?? "?"} ${message.unit ?? ""}`;
    case "job.started": return `${job}attempt ${message.attempt}`;
    case "job.result": return `${job}${message.result?.row_count ?? message.result?.rows?.length ?? "files"} ${message.result?.rows ? "rows" : "ready"}`;
    case "job.failed": case "job.retry": return `${job}${message.error?.message ?? message.error?.code ?? ""}`;
    case "job.cancelled": return job;
    default: return json.length > PREVIEW_CHARS ? `${json.slice(0, PREVIEW_CHARS)} …` : json;
  }
}
