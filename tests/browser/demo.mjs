// Drives the live page of `groupcast demo` in a real Chromium.
//
//     node demo.mjs BASE_URL ARTEFACT_DIR        e.g.  node demo.mjs http://127.0.0.1:8000 ../artefacts/browser
//
// Each step is one line of output. The first that fails ends the run with status 1 and a screenshot; so does any
// console error, exception, refused resource or breach of the content security policy, at the end.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { chromium } from "playwright-core";

const [base, artefacts] = process.argv.slice(2);
if (!base || !artefacts) {
  console.error("usage: node demo.mjs BASE_URL ARTEFACT_DIR");
  process.exit(2);
}
await mkdir(artefacts, { recursive: true });

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
const complaints = [];
const page = await open({ viewport: { width: 1440, height: 1000 }, colorScheme: "light" });
let code = 0;
try {
  await steps();
  assert.deepEqual(complaints, [], "the browser's console is clean");
  console.log("ok    the browser has nothing to complain about");
} catch (error) {
  code = 1;
  console.error(error.message);
  for (const complaint of complaints) console.error(`      console: ${complaint}`);
  await shot("failure", page).catch(() => {});
} finally {
  await browser.close();
}
process.exit(code);

async function steps() {
  await step("the page connects and says so", async () => {
    await page.goto(base);
    await page.locator("#connection[data-state=open]").waitFor();
    assert.match(await page.locator("#connection-state").textContent(), /^Connected/);
    await messages(page).filter({ hasText: "Listening to my_group" }).waitFor();
  });

  await step("the questions and the form of their parameters are there", async () => {
    assert.ok(await page.getByRole("radio", { name: /late most often/ }).isChecked());
    assert.ok(await page.locator("#questions input").count() >= 7);
    assert.deepEqual(await page.getByLabel("origin").locator("option").allTextContents(), ["JFK", "LGA", "EWR"]);
    await shot("empty", page);
  });

  await step("a live query changes by itself, row by row, and is no message of the feed", async () => {
    const rows = page.locator("#live-table tbody tr");
    await rows.first().waitFor();
    assert.equal(await rows.count(), 10);
    const changed = page.locator("#live-meta", { hasText: /^[0-9]+ new, [0-9]+ gone, version [0-9]+$/ });
    await changed.waitFor();
    const first = await changed.textContent();
    await page.waitForFunction((known) => document.getElementById("live-meta").textContent !== known, first);
    const landing = await page.locator("#live-table tbody td:nth-child(3)").allTextContents();
    assert.deepEqual(landing, [...landing].sort(), "they stand in the order in which they land");
    assert.equal(await messages(page).filter({ hasText: "query." }).count(), 0);
  });

  await step("subscribing and unsubscribing, and a bad name is explained", async () => {
    const group = page.getByLabel("Group to subscribe to");
    await group.fill("not a group");
    await group.press("Enter");
    await page.getByText("cannot be in a group name").waitFor();
    await group.fill("room.browser");
    await group.press("Enter");
    await page.locator("#groups li", { hasText: "room.browser" }).waitFor();
    await page.getByRole("button", { name: "Unsubscribe from room.browser" }).click();
    await page.locator("#groups li", { hasText: "room.browser" }).waitFor({ state: "detached" });
  });

  await step("a bad message is explained, a good one comes back", async () => {
    const text = page.getByLabel("Message, a JSON object");
    const problem = page.locator("#send-problem");
    for (const [json, why] of [["{type: 1}", /double quotes/], ["[1]", /JSON object/], ["{}", /needs a “type”/], ['{"type":"job.x"}', /gateway's own/]]) {
      await text.fill(json);
      await page.getByRole("button", { name: "Send to the group" }).click();
      assert.match(await problem.textContent(), why);
    }
    await text.fill('{"type":"chat.message","text":"<img src=x onerror=alert(1)> and \\"quotes\\""}');
    await text.press("Control+Enter");
    const entry = messages(page).filter({ hasText: "chat.message" }).first();
    await entry.waitFor();
    assert.equal(await problem.textContent(), "");
    assert.match(await entry.locator(".preview").textContent(), /<img src=x onerror/);
    assert.equal(await page.locator("#messages img").count(), 0, "text stays text");
    assert.match(await page.locator("#code").textContent(), /curl .*\/v1\/groups\/my_group\/send/);
  });

  await step("worst_routes: table, chart and the line to copy", async () => {
    await choose(page, /late most often/);
    await page.getByLabel("origin").selectOption("LGA");
    await page.getByRole("button", { name: "Run query" }).click();
    await page.locator("#result-title", { hasText: "late most often" }).waitFor();
    const routes = await page.locator("#table tbody th").allTextContents();
    assert.ok(routes.length > 5, `${routes.length} rows`);
    assert.ok(routes.every((route) => route.startsWith("LGA-")), routes.join());
    assert.equal(await page.locator("#chart .bar").count(), Math.min(15, routes.length));
    assert.match(await page.locator("#result-meta").textContent(), /sent to everybody in my_group.*origin LGA/);
    assert.match(await page.locator("#code").textContent(), /"query":"worst_routes".*httpx\.post\(\s+".*my_group\/send"/s);
    await job(page, "done").first().waitFor();
  });

  await step("the table sorts, the chart changes its column and reads out by keyboard", async () => {
    await page.getByRole("button", { name: "flights", exact: true }).click();
    const flights = (await page.locator("#table tbody td:nth-child(4)").allTextContents()).map((text) => Number(text.replace(",", "")));
    assert.deepEqual(flights, [...flights].sort((a, b) => b - a));
    await page.getByLabel("Show").selectOption({ label: "flights" });
    await page.locator("#chart svg").press("ArrowDown");
    assert.match(await page.locator("#chart figcaption").textContent(), /^LGA-.*late \(%\).*flights/);
    await page.getByLabel("Show").selectOption({ index: 0 });
  });

  await step("an answer for this page alone, as a line over the hours", async () => {
    await choose(page, /When should you leave/);
    await page.getByText("only me").click();
    await page.getByRole("button", { name: "Run query" }).click();
    await page.locator("#result-meta", { hasText: "sent to you alone" }).waitFor();
    assert.equal(await page.locator("#chart path.line").count(), 1);
    assert.match(await page.locator("#code").textContent(), /\/v1\/queries\/delay_by_hour/);
    await shot("hours", page);
  });

  await step("a long result comes as a link and is shown in part", async () => {
    await choose(page, /Every departure/);
    await page.getByText("all of my_group").click();
    await page.getByRole("button", { name: "Run query" }).click();
    await page.locator("#table-note", { hasText: /first 200 of/ }).waitFor();
    assert.equal(await page.locator("#table tbody tr").count(), 200);
  });

  await step("a bad parameter is explained and nothing is sent", async () => {
    await choose(page, /late most often/);
    const sent = await page.locator("#flow-sent output").textContent();
    await page.getByLabel("min flights").fill("0");
    await page.getByRole("button", { name: "Run query" }).click();
    await page.locator("#ask-problem", { hasText: "min flights" }).waitFor();
    assert.equal(await page.locator("#flow-sent output").textContent(), sent);
    await page.getByLabel("min flights").fill("20");
  });

  await step("a report ends in links that work", async () => {
    await choose(page, /spent at home/);
    await page.getByRole("button", { name: "Make a report" }).click();
    const card = page.locator("#jobs > li").filter({ hasText: "generate_report" }).first();
    const html = await card.getByRole("link", { name: "Open the report" }).getAttribute("href");
    const csv = await card.getByRole("link", { name: "CSV" }).getAttribute("href");
    const report = await page.request.get(new URL(html, base).href);
    assert.equal(report.status(), 200);
    assert.match(report.headers()["content-type"], /^text\/html/);
    const table = await page.request.get(new URL(csv, base).href);
    assert.match(table.headers()["content-type"], /^text\/csv/);
    assert.ok((await table.text()).trim().split("\n").length > 1, "the CSV has rows");
    const opened = await page.context().newPage();
    watch(opened);
    await opened.goto(new URL(html, base).href);
    await shot("report", opened);
    await opened.close();
  });

  await step("filter and pause", async () => {
    await page.getByLabel("Filter the messages").fill("CHAT.");
    assert.equal(await messages(page).count(), 1);
    await page.getByLabel("Filter the messages").fill("");
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByLabel("Message, a JSON object").fill('{"type":"while.paused"}');
    await page.getByRole("button", { name: "Send to the group" }).click();
    await page.locator("#feed-count", { hasText: "paused, 1 new" }).waitFor();
    assert.equal(await messages(page).filter({ hasText: "while.paused" }).count(), 0);
    await page.getByRole("button", { name: "Resume" }).click();
    await messages(page).filter({ hasText: "while.paused" }).waitFor();
  });

  await step("loss is told, a restart is survived, and a kick is not fought", async () => {
    const other = await open({ viewport: { width: 1000, height: 800 }, colorScheme: "light" });
    let socket;
    await other.routeWebSocket("**/ws", (route) => { route.connectToServer(); socket = route; });
    await other.goto(base);
    await messages(other).filter({ hasText: "Listening to my_group" }).waitFor();
    socket.send('{"type":"gap","group":"my_group","missed":12,"reason":"slow_consumer"}');
    await other.locator("#messages .gap", { hasText: "Gap in my_group: 12 messages missed (slow consumer)" }).waitFor();
    await socket.close({ code: 1012, reason: "restart" });
    await messages(other).filter({ hasText: "Connected again" }).waitFor();
    await other.locator("#messages .gap", { hasText: "Away for" }).waitFor();
    await other.locator("#connection[data-state=open]").waitFor();
    await shot("gap", other);
    await socket.close({ code: 1008, reason: "disconnected by an operator" });
    await other.locator("#connection[data-state=closed]").waitFor();
    assert.match(await other.locator("#connection-detail").textContent(), /by an operator/);
    await other.getByRole("button", { name: "Try now" }).click();
    await other.locator("#connection[data-state=open]").waitFor();
    await other.context().close();
  });

  await step("a phone in the dark: it hears the same group, and nothing sticks out", async () => {
    const phone = await open({ viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, colorScheme: "dark", isMobile: true, hasTouch: true });
    await phone.goto(base);
    await messages(phone).filter({ hasText: "Listening to my_group" }).waitFor();
    await choose(page, /late most often/);
    await page.getByLabel("origin").selectOption("JFK");
    await page.getByRole("button", { name: "Run query" }).click();
    await phone.locator("#result-title", { hasText: "somebody's question" }).waitFor();
    assert.ok(await phone.locator("#chart .bar").count() > 5);
    await expectCount(page.locator("#flow-group output"), "2");
    assert.ok(await phone.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "no sideways scrolling");
    await shot("phone", phone, { fullPage: true });
    await phone.context().close();
  });

  await step("light and dark on a desk", async () => {
    await page.locator("#result-meta", { hasText: "origin JFK" }).waitFor();
    const light = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    await page.evaluate(() => scrollTo(0, 0));
    await shot("light", page, { fullPage: true });
    await page.emulateMedia({ colorScheme: "dark" });
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), light);
    await shot("dark", page, { fullPage: true });
  });
}

async function open(options) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(15_000);
  const opened = await context.newPage();
  watch(opened);
  return opened;
}

function watch(opened) {
  opened.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(message.text()); });
  opened.on("pageerror", (error) => complaints.push(error.message));
  opened.on("requestfailed", (request) => complaints.push(`${request.url()}: ${request.failure()?.errorText}`));
}

async function step(name, run) {
  try {
    await run();
  } catch (error) {
    throw new Error(`FAIL  ${name}\n      ${error.message.replaceAll("\n", "\n      ")}`);
  }
  console.log(`ok    ${name}`);
}

/** Waits until a place shows this text. */
async function expectCount(locator, text) {
  await locator.filter({ hasText: new RegExp(`^${text}$`) }).waitFor();
}

function shot(name, of, options = {}) {
  return of.screenshot({ path: path.join(artefacts, `${name}.png`), ...options });
}

function messages(of) {
  return of.locator("#messages > li");
}

function job(of, state) {
  return of.locator("#jobs > li").filter({ hasText: state });
}

function choose(of, question) {
  return of.getByRole("radio", { name: question }).check();
}
