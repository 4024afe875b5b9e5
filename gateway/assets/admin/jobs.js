// Jobs: found by state, consumer and text; one with all that is known of it; tried again, cancelled, redriven.

import { api, at, query } from "./api.js";
import { byId, duration, el, shown, toast } from "./dom.js";
import { Pages, action, bytes, calmly, confirmed, number, repeat, showFacts, showRows, when } from "./views.js";

const PAGE = 100;
const LIST_EVERY_MS = 3000;
const JOB_EVERY_MS = 1000;
/** With a text: jobs that are looked through for one page. The text is looked for here. */
const LOOKED_AT_PER_CALL = 1000;
const LOOKED_AT_MAX = 5000;
const ENDED = ["succeeded", "dead", "cancelled"];
const ID = /^[0-9A-HJKMNP-TV-Z]{26}$/i;

let reading;
let pages;

export function setUpJobs() {
  pages = new Pages(byId("jobs-pager"), () => reading?.now());
  const changed = () => { pages.reset(); reading?.now(); };
  for (const id of ["jobs-state", "jobs-consumer"]) byId(id).addEventListener("change", changed);
  byId("jobs-text").addEventListener("input", calmly(changed, 300));
  byId("jobs-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("jobs-text").value.trim();
    if (ID.test(text)) location.hash = `#jobs/${text.toUpperCase()}`;
  });
}

/** Shows the list, or one job by its id. */
export function showJobs(id) {
  byId("job-list").hidden = Boolean(id);
  byId("job").hidden = !id;
  if (id) showJob(id);
  else reading = repeat(readList, LIST_EVERY_MS, (error) => { byId("jobs-count").textContent = error.message; });
}

export function hideJobs() {
  reading?.stop();
  reading = undefined;
}

async function readList() {
  await readConsumers();
  const text = byId("jobs-text").value.trim().toLowerCase();
  const wanted = { state: byId("jobs-state").value, consumer: byId("jobs-consumer").value };
  const { jobs, next, looked } = text ? await find(text, wanted) : await api(`jobs${query({ ...wanted, after: pages.after, limit: PAGE })}`);
  pages.told(next);
  byId("jobs-count").textContent = text ? `found ${shown(jobs.length)} among ${shown(looked)}${next ? "; “Next” goes on" : ""}` : "newest first";
  showRows(byId("jobs-rows"), jobs, ({ id }) => id, row, text || wanted.state || wanted.consumer ? "none is found by this" : "there are no jobs");
  await readDead();
}

/** A page of jobs that a text is found in, from as many as are looked through at once. */
async function find(text, wanted) {
  const found = [];
  let [after, looked] = [pages.after, 0];
  do {
    const { jobs, next } = await api(`jobs${query({ ...wanted, after, limit: LOOKED_AT_PER_CALL })}`);
    for (const job of jobs) {
      looked += 1;
      after = job.id;
      const { id, consumer, type, error } = job;
      if ([id, consumer, type, error?.code, error?.class, error?.message].some((part) => part?.toLowerCase().includes(text))) found.push(job);
      if (found.length === PAGE) return { jobs: found, next: after, looked };
    }
    if (next === null) return { jobs: found, next: null, looked };
  } while (looked < LOOKED_AT_MAX);
  return { jobs: found, next: after, looked };
}

async function readConsumers() {
  const choice = byId("jobs-consumer");
  if (choice.options.length > 1) return;
  const { consumers } = await api("consumers");
  choice.append(...consumers.map(({ name }) => el("option", {}, name)));
}

function row({ id, state, consumer, type, attempt, max_attempts, enqueued_at, started_at, finished_at, error }) {
  return [
    el("th", { scope: "row" }, el("a", { href: `#jobs/${id}`, title: id }, el("code", {}, id.slice(-8)))),
    badge(state), consumer, type, number(`${attempt} of ${max_attempts}`), when(enqueued_at), number(took(started_at, finished_at)),
    el("td", { class: "error" }, error ? `${error.code}: ${error.message}` : ""),
  ];
}

const badge = (state) => el("span", { class: "badge", "data-state": state }, state);

const took = (started, finished) => (started && finished ? duration(Math.max(0, new Date(finished) - new Date(started))) : "–");

async function readDead() {
  const { reasons } = await api("jobs/dead");
  showRows(byId("dead-rows"), reasons, ({ consumer, code, class: kind }) => `${consumer} ${code} ${kind}`, (reason) => [
    el("th", { scope: "row" }, reason.consumer), reason.code ?? "–", reason.class ?? "–", number(reason.jobs),
    action("Redrive …", () => redrive(reason), { class: "link", "aria-label": `Redrive the dead jobs of ${reason.consumer} with ${reason.code}` }),
  ], "no job is dead");
}

async function redrive({ consumer, code }) {
  const which = { consumer, reason: code ?? undefined };
  const { redriven: count } = await api("jobs/redrive", { method: "POST", body: { ...which, dry_run: true } });
  if (count === 0) { toast("None of them can be redriven now: others with their unique keys are waiting."); return; }
  const what = `${shown(count)} dead ${count === 1 ? "job" : "jobs"} of ${consumer} with ${code}`;
  if (!await confirmed(`Make ${what} ready again?`, "Redrive")) return;
  const { redriven } = await api("jobs/redrive", { method: "POST", body: { ...which, limit: count } });
  toast(`${shown(redriven)} redriven`);
  reading?.now();
}

function showJob(id) {
  byId("job-title").textContent = id;
  for (const part of ["job-state", "job-error", "job-actions", "job-progress", "job-facts"]) byId(part).replaceChildren();
  byId("job-facts").looks = byId("job-actions").looks = undefined;
  reading = repeat(async () => drawJob(await api(at("jobs", id))), JOB_EVERY_MS, (error) => { byId("job-error").textContent = error.message; });
}

function drawJob(job) {
  byId("job-state").textContent = job.state;
  byId("job-state").dataset.state = job.state;
  byId("job-error").textContent = job.error ? `${job.error.code} (${job.error.class}): ${job.error.message}` : "";
  drawProgress(job);
  const { result } = job;
  showFacts(byId("job-facts"), [
    ["consumer", job.consumer], ["type", job.type], ["attempt", `${job.attempt} of ${job.max_attempts}`], ["durability", job.durability],
    ["stored", when(job.enqueued_at)], ["began", when(job.started_at)], ["ended", when(job.finished_at)], ["took", took(job.started_at, job.finished_at)],
    ["result", result && `${result.rows === null ? "" : `${shown(result.rows)} rows, `}${bytes(result.bytes)}${result.truncated ? ", cut" : ""}`],
    ["SHA-256", result?.digest],
  ]);
  drawActions(job);
}

function drawProgress({ progress, state }) {
  const { done, total, unit } = progress ?? {};
  const text = done === undefined ? "" : `${shown(done)} of ${total ? shown(total) : "?"} ${unit}`;
  byId("job-progress").replaceChildren(...(text && !ENDED.includes(state)
    ? [el("div", { class: "progress" }, el("progress", { max: total || 1, value: total ? done : undefined, "aria-label": text }), el("span", { class: "fine" }, text))] : []));
}

function drawActions({ id, state, result }) {
  const place = byId("job-actions");
  const looks = `${id} ${state}`;
  if (place.looks === looks) return;
  place.looks = looks;
  const path = `/admin/api/${at("jobs", id, "result")}`;
  // What it is by default, as a page or as JSON; rows have other forms as well.
  const links = !result ? [] : [[path, "Open the result"], ...(result.rows === null ? [] : ["csv", "ndjson"].map((format) => [path + query({ format }), format.toUpperCase()]))];
  place.replaceChildren(...[
    state === "dead" && action("Try again", () => retry(id)),
    !ENDED.includes(state) && action("Cancel", () => cancel(id)),
    ...links.map(([href, text]) => el("a", { href, target: "_blank", rel: "noopener" }, text)),
  ].filter(Boolean));
}

async function retry(id) {
  const { redriven } = await api("jobs/redrive", { method: "POST", body: { job: id } });
  toast(redriven ? "It is ready again" : "It cannot be redriven now: it is not dead any more, or another one with its unique key is waiting.", redriven ? "info" : "error");
  reading?.now();
}

async function cancel(id) {
  if (!await confirmed(`Cancel the job ${id}?`, "Cancel the job")) return;
  await api(at("jobs", id), { method: "DELETE" });
  toast("It is being cancelled");
  reading?.now();
}
