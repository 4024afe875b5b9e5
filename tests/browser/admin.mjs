// Drives the admin page in a real Chromium, against a gateway, a backend and clients of its own.
//
//     node admin.mjs BINARY ARTEFACT_DIR        e.g.  node admin.mjs ../../target/release/groupcast ../artefacts/browser
//
// Each step is one line of output. The first that fails ends the run with status 1 and a screenshot; so does any console
// error, exception or breach of the content security policy that no step has expected, at the end.

import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { launch, start, step } from "./support.mjs";

const [binary, artefacts] = process.argv.slice(2);
if (!binary || !artefacts) {
  console.error("usage: node admin.mjs BINARY ARTEFACT_DIR");
  process.exit(2);
}

const KEY = "the-key-of-the-operators-0123456789abcdef";
const BILLING_KEY = "the-key-of-another-service-0123456789abcde";
const SECRET = "the-secret-that-tokens-are-signed-with-0123";
/** What would be an attack if a text became markup, a style or a script. */
const CANARY = `<img src=x onerror="window.attacked=1"><script>window.attacked=1</script>'"&<b>`;
const GROUPS = 10_000;
const DEADLINE = 30_000;

// Says no until it is told otherwise; the reason is the canary.
let backendWorks = false;
const backend = createServer((request, response) => {
  request.resume().once("end", () => {
    if (backendWorks) response.writeHead(200, { "content-type": "application/json" }).end('{"columns":["n"],"rows":[[1]]}');
    else response.writeHead(422, { "content-type": "application/json" }).end(JSON.stringify({ code: "bad_invoice", detail: CANARY }));
  });
});
await new Promise((resolve) => { backend.listen(0, "127.0.0.1", resolve); });

const CONFIG = `
[server]
listen = "127.0.0.1:PORT"
[limits]
connections_per_address = 1000
[[group]]
name = "room.*"
history = { messages = 1000, age = "1h" }
presence = true
[[consumer]]
name = "invoices"
group = "work"
type = "invoice"
run = "http"
url = "http://127.0.0.1:${backend.address().port}/jobs"
allow_private = true
durability = "memory"
max_attempts = 1
[[schedule]]
name = "night"
cron = "0 3 * * *"
group = "work"
message = { type = "invoice" }
[auth]
api_keys_file = "api.keys"
jwt_secret_file = "jwt.secret"
[[auth.api_key]]
name = "billing"
sha256 = "${createHash("sha256").update(BILLING_KEY).digest("hex")}"
scopes = { send = ["work"] }
`;

await mkdir(artefacts, { recursive: true });
const folder = await mkdtemp(path.join(tmpdir(), "groupcast-admin-"));
await writeFile(path.join(folder, "api.keys"), KEY, { mode: 0o600 });
await writeFile(path.join(folder, "jwt.secret"), SECRET, { mode: 0o600 });
let gateway = await start(binary, folder, CONFIG);
const { base } = gateway;
const browser = await launch();
const complaints = [];
const streams = [];
const page = await open({ viewport: { width: 1360, height: 900 }, colorScheme: "light" });
let code = 0;
try {
  await steps();
  assert.deepEqual(complaints, [], "the browser's console is clean");
  console.log("ok    the browser has nothing to complain about on the admin page");
} catch (error) {
  code = 1;
  console.error(error.message);
  for (const complaint of complaints) console.error(`      console: ${complaint}`);
  console.error(gateway.printed().split("\n").slice(-20).join("\n"));
  await shot("admin-failure", page).catch(() => {});
} finally {
  await browser.close();
  for (const stream of streams) stream.abort();
  gateway.process.kill("SIGKILL");
  backend.close();
  await rm(folder, { recursive: true });
}
process.exit(code);

async function steps() {
  await step("nobody gets in without a key, with a wrong one, or with one for less", async () => {
    await page.goto(`${base}/admin/`);
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    assert.ok(await page.locator("#nav").isHidden());
    await page.getByLabel("API key").fill("a-wrong-key-that-is-long-enough-0123456789");
    await expected(/401/, () => page.getByLabel("API key").press("Enter"));
    await page.locator("#sign-in-problem", { hasText: "not known" }).waitFor();
    await page.getByLabel("API key").fill(userToken("mallory"));
    await expected(/401/, () => page.getByRole("button", { name: "Sign in" }).click());
    await page.getByLabel("API key").fill(BILLING_KEY);
    await expected(/403/, () => page.getByRole("button", { name: "Sign in" }).click());
    await page.locator("#sign-in-problem", { hasText: "admin = true" }).waitFor();
    assert.ok(await page.locator("#overview").isHidden());
    await shot("admin-sign-in", page);
  });

  await step("a key for everything is traded for a cookie that no script reads and no other path gets", async () => {
    await page.getByLabel("API key").fill(KEY);
    await page.getByLabel("API key").press("Enter");
    await page.locator("#state[data-state=open]").waitFor();
    assert.equal(await page.getByLabel("API key").inputValue(), "", "the key is not kept");
    const [cookie] = await page.context().cookies(`${base}/admin/`);
    assert.deepEqual([cookie.name, cookie.path, cookie.httpOnly, cookie.sameSite], ["groupcast_admin", "/admin/", true, "Strict"]);
    assert.equal(await page.evaluate(() => document.cookie), "");
    const header = { cookie: `groupcast_admin=${cookie.value}` };
    assert.equal((await fetch(`${base}/admin/api/overview`, { headers: header })).status, 200);
    for (const other of ["/v1/groups", "/v1/jobs", "/metrics"]) {
      assert.equal((await fetch(base + other, { headers: header })).status, 401, `the cookie is worth nothing at ${other}`);
    }
  });

  await step("another page cannot have the browser do anything here", async () => {
    const [cookie] = await page.context().cookies(`${base}/admin/`);
    const asked = (headers, method = "POST") => fetch(`${base}/admin/api/consumers/invoices/pause`, {
      method, headers: { cookie: `groupcast_admin=${cookie.value}`, ...headers } }).then(({ status }) => status);
    for (const headers of [{ "sec-fetch-site": "cross-site" }, { "sec-fetch-site": "same-site" }, { origin: "http://evil.example" }, { origin: "null" }, {}]) {
      assert.equal(await asked(headers), 403, JSON.stringify(headers));
    }
    // The same from a page at another port of this host, to which SameSite is no hindrance.
    const evil = createServer((_, response) => { response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>evil</title>"); });
    await new Promise((resolve) => { evil.listen(0, "127.0.0.1", resolve); });
    const foreign = await page.context().newPage();
    await foreign.goto(`http://127.0.0.1:${evil.address().port}/`);
    const refused = foreign.waitForResponse((response) => response.url().includes("/pause"));
    await foreign.evaluate((url) => fetch(url, { method: "POST", mode: "no-cors", credentials: "include" }), `${base}/admin/api/consumers/invoices/pause`);
    assert.equal((await refused).status(), 403);
    await foreign.close();
    evil.close();
    const { consumers: [invoices] } = await service("/v1/consumers");
    assert.equal(invoices.paused, false);
  });

  await step("the overview counts and draws what happens, and says what is ready", async () => {
    await expectText("#tile-connections", "0");
    const ear = await listen("room.1", userToken("alice"));
    await expectText("#tile-connections", "1");
    await expectText("#tile-groups", "1");
    for (let n = 0; n < 20; n++) await send("room.1", { type: "chat.message", n });
    await page.locator("#tile-deliveries", { hasNotText: /^(0|–)/ }).waitFor();
    await drawn();
    assert.equal(await page.locator("#charts .chart").count(), 8);
    for (const part of ["gateway", "layer", "jobs"]) await page.locator("#parts li[data-state=open]", { hasText: part }).waitFor();
    await page.locator("#refusals tr", { hasText: "HTTP 401" }).waitFor();
    await page.locator("#charts svg").first().press("ArrowLeft");
    await page.locator("#charts .legend", { hasText: "s ago" }).waitFor();
    await shot("admin-overview", page);
    ear.abort();
    await expectText("#tile-connections", "0");
  });

  await step("a group has its members, its history and a live tail that can be filtered and paused", async () => {
    await listen("room.1", userToken(CANARY));
    await send("room.1", { type: "chat.message", text: CANARY });
    await go("Groups");
    await page.getByRole("link", { name: "room.1", exact: true }).click();
    await page.locator("#history li", { hasText: "onerror" }).waitFor();
    await expectText("#group-facts dd", "21", 2);
    await messages().filter({ hasText: "Listening to room.1" }).waitFor();
    await expectText("#group-facts dd", "2", 0);
    await send("room.1", { type: "chat.tail", text: `${CANARY} seen live` });
    await messages().filter({ hasText: "seen live" }).waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await send("room.1", { type: "chat.paused" });
    await page.locator("#feed-count", { hasText: "paused, 1 new" }).waitFor();
    assert.equal(await messages().filter({ hasText: "chat.paused" }).count(), 0);
    await page.getByRole("button", { name: "Resume" }).click();
    await messages().filter({ hasText: "chat.paused" }).waitFor();
    await page.getByLabel("Filter the messages").fill("chat.tail");
    await page.waitForFunction(() => document.querySelectorAll("#messages > li").length === 1);
    await messages().first().locator("summary").click();
    assert.match(await messages().first().locator("pre").textContent(), /seen live/);
    await shot("admin-group", page);
    await page.getByRole("link", { name: "All groups" }).click();
  });

  await step("a name that is none is only a text, also in the address", async () => {
    await page.goto(`${base}/admin/#groups/${encodeURIComponent(CANARY)}`);
    await page.locator("#history-note", { hasText: "cannot be in a group name" }).waitFor();
    assert.equal(await page.locator("#group-title").textContent(), CANARY);
    await unharmed();
  });

  await step("with 10,000 groups the page has one page of them, and finds each", async () => {
    await crowd();
    await go("Groups");
    await page.locator("#groups-rows tr").nth(99).waitFor();
    assert.equal(await page.locator("#groups-rows tr").count(), 100);
    assert.ok(await page.evaluate(() => document.querySelectorAll("*").length) < 2000, "the page stays small");
    await page.getByRole("button", { name: "Next" }).click();
    await page.locator("#groups-pager", { hasText: "page 2" }).waitFor();
    await page.locator("#groups-rows tr", { hasText: "crowd.00100" }).waitFor();
    assert.equal(await page.locator("#groups-rows tr").count(), 100);
    await page.getByRole("button", { name: "Back" }).click();
    await page.locator("#groups-rows tr", { hasText: "crowd.00000" }).waitFor();
    await page.getByLabel("Names that begin with").fill("crowd.0777");
    await page.waitForFunction(() => document.querySelectorAll("#groups-rows tr").length === 10);
    await page.getByRole("link", { name: "crowd.07777" }).click();
    await page.getByRole("heading", { name: "crowd.07777" }).waitFor();
    await go("Groups");
    await page.getByLabel("Names that begin with").fill("");
    await go("Overview");
    await page.locator("#tile-groups", { hasText: /^10,00/ }).waitFor();
  });

  await step("a connection is found by its user, and ended when that is confirmed", async () => {
    await go("Connections");
    await page.getByLabel("A part of the user").fill("ONERROR=");
    const row = page.locator("#connections-rows tr", { hasText: CANARY });
    await row.waitFor();
    assert.equal(await page.locator("#connections-rows tr").count(), 1);
    await shot("admin-connections", page);
    await row.getByRole("button", { name: /^Disconnect/ }).click();
    await page.getByRole("button", { name: "Leave it" }).click();
    await row.getByRole("button", { name: /^Disconnect/ }).click();
    await page.locator("#confirm").getByRole("button", { name: "Disconnect" }).click();
    await page.locator("#connections-rows", { hasText: "none is found" }).waitFor();
    await unharmed();
  });

  await step("a job that failed is found, read and tried again until it succeeds", async () => {
    const [failed] = (await send("work", { type: "invoice", n: 1 })).jobs;
    await go("Jobs");
    await page.getByLabel("State").selectOption("dead");
    await page.getByLabel("Text").fill("ONERROR");
    await page.locator("#jobs-rows tr", { hasText: "bad_invoice" }).waitFor();
    await shot("admin-jobs", page);
    await page.getByRole("link", { name: failed.id.slice(-8) }).click();
    await page.locator("#job-error", { hasText: "<script>" }).waitFor();
    await unharmed();
    backendWorks = true;
    await page.getByRole("button", { name: "Try again" }).click();
    await page.locator("#job-state[data-state=succeeded]").waitFor();
    const result = await page.getByRole("link", { name: "Open the result" }).getAttribute("href");
    assert.equal((await page.request.get(base + result)).status(), 200);
    await shot("admin-job", page);
  });

  await step("a consumer is paused, its job cancelled, and it goes on", async () => {
    await go("Consumers");
    await page.getByRole("button", { name: "Pause invoices" }).click();
    await page.locator("#consumers-rows .badge", { hasText: "paused" }).waitFor();
    const [waiting] = (await send("work", { type: "invoice", n: 2 })).jobs;
    await page.locator("#schedules-rows tr", { hasText: "0 3 * * *" }).waitFor();
    await page.evaluate((id) => { location.hash = `#jobs/${id}`; }, waiting.id);
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("button", { name: "Cancel the job" }).click();
    await page.locator("#job-state", { hasText: "cancelled" }).waitFor();
    await go("Consumers");
    await page.getByRole("button", { name: "Resume invoices" }).click();
    await page.locator("#consumers-rows .badge", { hasText: "works" }).waitFor();
  });

  await step("dead jobs are counted first and redriven when that is confirmed", async () => {
    backendWorks = false;
    const jobs = await Promise.all([3, 4, 5].map(async (n) => (await send("work", { type: "invoice", n })).jobs[0].id));
    for (const id of jobs) assert.equal((await service(`/v1/jobs/${id}?wait=20`)).state, "dead");
    backendWorks = true;
    await go("Jobs");
    await page.getByLabel("Text").fill("");
    await page.getByLabel("State").selectOption("");
    const reason = page.locator("#dead-rows tr", { hasText: "bad_invoice" });
    await reason.filter({ hasText: /3/ }).waitFor();
    await reason.getByRole("button").click();
    await page.locator("#confirm", { hasText: "Make 3 dead jobs of invoices with bad_invoice ready again?" }).waitFor();
    await page.locator("#confirm").getByRole("button", { name: "Redrive" }).click();
    await page.locator("#dead-rows", { hasText: "no job is dead" }).waitFor();
    for (const id of jobs) assert.equal((await service(`/v1/jobs/${id}?wait=20`)).state, "succeeded");
  });

  await step("it can be used by keyboard, and a choice of colours is remembered", async () => {
    await page.goto(`${base}/admin/#overview`);
    await page.locator("#state[data-state=open]").waitFor();
    await page.getByRole("link", { name: "Groups", exact: true }).focus();
    await page.keyboard.press("Enter");
    await page.getByLabel("Names that begin with").waitFor();
    const light = await background();
    await page.getByLabel("Colours").selectOption("dark");
    assert.notEqual(await background(), light);
    await page.reload();
    assert.notEqual(await background(), light);
    await page.getByLabel("Colours").selectOption("");
    assert.equal(await background(), light);
    await page.emulateMedia({ colorScheme: "dark" });
    assert.notEqual(await background(), light, "the system's choice");
    await go("Overview");
    await page.locator("#tile-groups", { hasText: /^10,00/ }).waitFor();
    await drawn();
    await shot("admin-dark", page, { fullPage: true });
    await page.emulateMedia({ colorScheme: "light" });
    await shot("admin-light", page, { fullPage: true });
  });

  await step("on a phone nothing sticks out", async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    for (const part of ["Groups", "Connections", "Jobs", "Consumers", "Overview"]) {
      await go(part);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `no sideways scrolling in ${part}`);
      await shot(`admin-phone-${part.toLowerCase()}`, page, { fullPage: true });
    }
    await page.setViewportSize({ width: 1360, height: 900 });
  });

  await step("a gateway that is away is told, and one that is back asks for the key again", async () => {
    const before = complaints.length;
    gateway.process.kill("SIGKILL");
    await gateway.ended;
    await page.locator("#state", { hasText: "Trying again since" }).waitFor();
    await shot("admin-away", page);
    gateway = await start(binary, folder, CONFIG, new URL(base).port);
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    await page.locator("#sign-in-problem", { hasText: "over" }).waitFor();
    await page.getByLabel("API key").fill(KEY);
    await page.getByLabel("API key").press("Enter");
    await page.locator("#state[data-state=open]").waitFor();
    // As many as there were attempts, which is a matter of time.
    complaints.push(...complaints.splice(before).filter((complaint) => !/net::ERR_|status of 401/.test(complaint)));
    await page.getByRole("button", { name: /^Sign out/ }).click();
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    assert.deepEqual(await page.context().cookies(`${base}/admin/`), []);
  });
}

async function open(options) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(DEADLINE);
  const opened = await context.newPage();
  opened.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(message.text()); });
  opened.on("pageerror", (error) => complaints.push(error.message));
  await opened.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => console.error(`breach of ${event.violatedDirective}: ${event.blockedURI}`));
  });
  return opened;
}

/** Runs something that the browser will complain about, as it should; what else it complains of stays. */
async function expected(pattern, run) {
  const before = complaints.length;
  await run();
  // The complaint comes by another way than the answer.
  if (complaints.length === before) await page.waitForEvent("console", { predicate: (message) => message.type() === "error" });
  const others = complaints.splice(before).filter((complaint) => !pattern.test(complaint));
  complaints.push(...others);
}

async function unharmed() {
  assert.equal(await page.evaluate(() => window.attacked), undefined, "a text became a script");
  assert.equal(await page.locator("main img, main script, main b:not([id] b)").filter({ hasText: "attacked" }).count(), 0);
  assert.equal(await page.locator("main img").count(), 0, "a text became markup");
}

async function go(part) {
  await page.locator("#nav").getByRole("link", { name: part, exact: true }).click();
  await page.locator(`#${part.toLowerCase()}`).waitFor();
}

/** Waits until most of the charts have a line. */
function drawn() {
  return page.waitForFunction(() => [...document.querySelectorAll("#charts svg .line-0")].filter((line) => line.getAttribute("d").includes("L")).length >= 4);
}

function messages() {
  return page.locator("#messages > li");
}

function background() {
  return page.evaluate(() => getComputedStyle(document.body).backgroundColor);
}

/** Waits until a place shows exactly this. */
async function expectText(selector, text, nth = 0) {
  await page.waitForFunction(({ selector, text, nth }) => document.querySelectorAll(selector)[nth]?.textContent === text, { selector, text, nth });
}

function shot(name, of, options = {}) {
  return of.screenshot({ path: path.join(artefacts, `${name}.png`), ...options });
}

async function service(address, options = {}) {
  const answer = await fetch(base + address, { ...options, headers: { authorization: `Bearer ${KEY}`, "content-type": "application/json", ...options.headers } });
  assert.ok(answer.ok, `${address}: ${answer.status}`);
  return answer.status === 204 ? null : answer.json();
}

function send(group, message) {
  return service(`/v1/groups/${group}/send`, { method: "POST", body: JSON.stringify(message) });
}

/** As many groups as there may be, with a member each. */
async function crowd() {
  let next = 0;
  const add = async () => {
    while (next < GROUPS) {
      const name = String(next++).padStart(5, "0");
      await service(`/v1/groups/crowd.${name}/members/crowd`, { method: "PUT" });
    }
  };
  await Promise.all(Array.from({ length: 24 }, add));
}

/** An event stream of somebody; it is open when this returns. */
async function listen(group, token) {
  const control = new AbortController();
  streams.push(control);
  const answer = await fetch(`${base}/v1/events?group=${group}`, { headers: { authorization: `Bearer ${token}` }, signal: control.signal });
  assert.equal(answer.status, 200);
  // What nobody reads would be held back.
  answer.body.pipeTo(new WritableStream()).catch(() => {});
  return control;
}

function userToken(name) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { sub: name, exp: Math.floor(Date.now() / 1000) + 600, subscribe: ["room.*"] };
  const body = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${body}.${createHmac("sha256", SECRET).update(body).digest("base64url")}`;
}
