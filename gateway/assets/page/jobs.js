// A card for each job: state, progress, time, and what can be done with it.

import { byId, duration, el, shortId, shown } from "./dom.js";

const KEPT = 12;
const ENDED = new Set(["succeeded", "dead", "cancelled"]);
const WORDS = { scheduled: "waits for a retry", ready: "stored", running: "running", succeeded: "done", dead: "failed", cancelled: "cancelled" };

const jobs = new Map();
let seen = 0;

/** A job that this page asked for, or that was seen in a group. `about` = {title, kind, params}. */
export function noteJob(id, about = {}) {
  let job = jobs.get(id);
  if (job) {
    Object.assign(job.about, about);
  } else {
    seen += 1;
    job = { id, about, state: "ready", since: performance.now(), node: el("li", { class: "job" }) };
    jobs.set(id, job);
    byId("jobs").prepend(job.node);
    forgetOld();
  }
  draw(job);
  return job;
}

export const jobsSeen = () => seen;
export const aboutJob = (id) => jobs.get(id)?.about ?? {};
export const unfinished = () => [...jobs.values()].filter((job) => !ENDED.has(job.state)).map((job) => job.id);

/** Changes what is known of a job: {state, attempt, progress, elapsedMs, error, links, show}. */
export function updateJob(id, change) {
  const job = noteJob(id);
  // The record is the truth and events are hints that may come twice: what has ended stays ended.
  if (ENDED.has(job.state) && change.state && !ENDED.has(change.state)) return;
  Object.assign(job, change);
  if (ENDED.has(job.state)) job.elapsedMs ??= performance.now() - job.since;
  draw(job);
}

export function setUpJobs(cancel) {
  byId("jobs").addEventListener("click", (event) => {
    const id = event.target.closest("[data-cancel]")?.dataset.cancel;
    if (id) cancel(id);
  });
  setInterval(() => { for (const id of unfinished()) drawTime(jobs.get(id)); }, 100);
}

function forgetOld() {
  for (const [id, job] of jobs) {
    if (jobs.size <= KEPT) return;
    if (ENDED.has(job.state)) { job.node.remove(); jobs.delete(id); }
  }
  // All are running: the oldest go, so that the list stays bounded.
  for (const [id, job] of jobs) {
    if (jobs.size <= KEPT * 2) return;
    job.node.remove();
    jobs.delete(id);
  }
}

function draw(job) {
  const ended = ENDED.has(job.state);
  const { title, kind, params } = job.about;
  job.node.dataset.state = job.state;
  job.node.dataset.job = job.id;
  job.time = el("span", { class: "time" });
  job.node.replaceChildren(...[
    el("div", { class: "job-head" }, el("b", {}, title ?? "A job of somebody else"), el("span", { class: "badge" }, WORDS[job.state] ?? job.state)),
    el("p", { class: "fine" }, `${kind ?? job.consumer ?? "job"} `, el("code", { title: job.id }, shortId(job.id)), job.attempt > 1 && ` · attempt ${job.attempt}`, " · ", job.time, params && ` · ${params}`),
    progress(job, ended),
    job.error && el("p", { class: "problem" }, job.error),
    actions(job, ended),
  ].filter(Boolean));
  drawTime(job);
  const open = unfinished().length;
  byId("jobs-count").textContent = open ? `${open} open, ${shown(seen)} seen` : `${shown(seen)} seen`;
}

function progress(job, ended) {
  if (ended || (!job.progress && job.state !== "running")) return null;
  const { done, total, unit } = job.progress ?? {};
  const text = done === undefined ? "working" : `${shown(done)} of ${total ? shown(total) : "?"} ${unit ?? ""}`;
  return el("div", { class: "progress" }, el("progress", { max: total || 1, value: total ? done : undefined, "aria-label": text }), el("span", { class: "fine" }, text));
}

function actions(job, ended) {
  const items = [];
  if (!ended) items.push(el("button", { type: "button", class: "link", "data-cancel": job.id }, "Cancel"));
  if (job.show) items.push(el("button", { type: "button", class: "link", onclick: job.show }, "Show result"));
  for (const { text, href, download } of job.links ?? []) {
    items.push(el("a", { href, download, target: download ? undefined : "_blank", rel: "noopener" }, text));
  }
  return items.length ? el("div", { class: "job-actions" }, ...items) : null;
}

function drawTime(job) {
  job.time.textContent = duration(job.elapsedMs ?? performance.now() - job.since);
}
