// The page as a whole: who is signed in, which part is shown, and whether the gateway answers.

import { SIGNED_OUT, api } from "./api.js";
import { hideConnections, setUpConnections, showConnections } from "./connections.js";
import { hideConsumers, showConsumers } from "./consumers.js";
import { byId, clock } from "./dom.js";
import { setUpFeed } from "./feed.js";
import { hideGroups, setUpGroups, showGroups } from "./groups.js";
import { hideJobs, setUpJobs, showJobs } from "./jobs.js";
import { setUpOverview, takeReading } from "./overview.js";
import { setUpTheme } from "./theme.js";
import { repeat } from "./views.js";

const READ_EVERY_MS = 2000;
const PARTS = {
  overview: { show() {}, hide() {} },
  groups: { show: showGroups, hide: hideGroups },
  connections: { show: showConnections, hide: hideConnections },
  jobs: { show: showJobs, hide: hideJobs },
  consumers: { show: showConsumers, hide: hideConsumers },
};

let shownPart;
/** Since when there is no answer; undefined while there is. */
let awaySince;
let reading;

setUpTheme();
setUpOverview();
setUpFeed();
setUpGroups();
setUpConnections();
setUpJobs();
byId("sign-in").addEventListener("submit", signIn);
byId("sign-out").addEventListener("click", signOut);
byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("view").focus(); });
addEventListener(SIGNED_OUT, () => leave("The session is over. Sign in again."));
addEventListener("hashchange", () => { if (reading) showPart(); });
start();

/** Asks whether somebody is signed in, until there is an answer. */
async function start() {
  try {
    const session = await api("session");
    if (session.open || session.operator) enter(session);
    else leave("", session.keys);
  } catch (error) {
    told("waiting", error.message);
    setTimeout(start, READ_EVERY_MS);
  }
}

function enter({ operator }) {
  byId("loading").hidden = byId("sign-in").hidden = true;
  byId("nav").hidden = false;
  byId("sign-out").hidden = !operator;
  byId("sign-out").textContent = operator ? `Sign out ${operator}` : "";
  reading = repeat(read, READ_EVERY_MS, (error) => {
    awaySince ??= clock();
    told("waiting", `${error.message} Trying again since ${awaySince}.`);
  });
  showPart();
}

/** Shows nothing but the form. */
function leave(why, keys = true) {
  reading?.stop();
  reading = undefined;
  if (shownPart) { PARTS[shownPart].hide(); byId(shownPart).hidden = true; }
  shownPart = awaySince = undefined;
  byId("loading").hidden = byId("nav").hidden = byId("sign-out").hidden = true;
  byId("sign-in").hidden = false;
  byId("sign-in-problem").textContent = keys ? why : "This gateway has no key for everything. “groupcast key new --name NAME --admin” makes one.";
  told("closed", "Signed out");
  byId("key").focus();
}

async function signIn(event) {
  event.preventDefault();
  const key = byId("key").value;
  if (key.trim() === "") { byId("sign-in-problem").textContent = "Type or paste a key."; return; }
  try {
    const session = await api("session", { method: "POST", body: { key } });
    byId("key").value = byId("sign-in-problem").textContent = "";
    enter(session);
  } catch (error) {
    byId("sign-in-problem").textContent = error.message;
    byId("key").select();
  }
}

async function signOut() {
  await api("session", { method: "DELETE" }).catch(() => {});
  leave("");
}

async function read() {
  const reading = await api("overview");
  const { node, version, role, layer, began_at, parts } = reading;
  byId("about").textContent = `${node}, version ${version}, ${layer} layer${role === "all" ? "" : `, ${role} alone`}, since ${new Date(began_at).toLocaleString("en-GB")}`;
  awaySince = undefined;
  const wrong = parts.filter(({ problem }) => problem).length;
  told(wrong ? "waiting" : "open", wrong ? `${wrong} of ${parts.length} parts not ready` : "Ready");
  takeReading(reading);
}

function told(state, text) {
  byId("state").dataset.state = state;
  if (byId("state-text").textContent !== text) byId("state-text").textContent = text;
  // What is shown may be old.
  byId("view").classList.toggle("stale", awaySince !== undefined);
}

/** What the address says: `#jobs/01J…` is one job. */
function showPart() {
  const [name, ...rest] = location.hash.slice(1).split("/");
  const part = Object.hasOwn(PARTS, name) ? name : "overview";
  if (shownPart) { PARTS[shownPart].hide(); byId(shownPart).hidden = true; }
  shownPart = part;
  byId(part).hidden = false;
  for (const link of byId("nav").querySelectorAll("a")) {
    if (link.hash === `#${part}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  PARTS[part].show(decoded(rest.join("/")));
  scrollTo(0, 0);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
