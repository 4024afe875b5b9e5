// A plain EventSource in a real Chromium, against a gateway of its own.
//
//     node events.mjs BINARY        e.g.  node events.mjs ../../target/release/groupcast
//
// Each step is one line of output; the first that fails ends the run with status 1.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { launch, start, step } from "./support.mjs";

const [binary] = process.argv.slice(2);
if (!binary) {
  console.error("usage: node events.mjs BINARY");
  process.exit(2);
}

const CONFIG = `
[server]
listen = "127.0.0.1:PORT"
[[group]]
name = "room.*"
history = { messages = 1000, age = "1h" }
`;
const DEADLINE = 20_000;

const folder = await mkdtemp(path.join(tmpdir(), "groupcast-events-"));
let gateway = await start(binary, folder, CONFIG);
const base = gateway.base;
const browser = await launch();
let code = 0;
try {
  await steps();
} catch (error) {
  code = 1;
  console.error(error.message);
  console.error(gateway.printed());
} finally {
  await browser.close();
  gateway.process.kill("SIGKILL");
  await rm(folder, { recursive: true });
}
process.exit(code);

async function steps() {
  const page = await browser.newPage();
  // Any page of the gateway's own origin that lets scripts connect.
  await page.goto(`${base}/healthz`);

  await step("an EventSource is subscribed and gets every message in order", async () => {
    await listen(page, "one", ["room.1"]);
    const [subscribed] = await seen(page, "one", 1);
    assert.deepEqual([subscribed.name, subscribed.data.type, subscribed.data.group], ["subscribed", "subscribed", "room.1"]);
    assert.equal(subscribed.id, `${subscribed.data.epoch}:${subscribed.data.offset}`);
    for (let n = 1; n <= 20; n++) await send("room.1", n);
    const events = await seen(page, "one", 21);
    assert.deepEqual(numbers(events), range(1, 20));
    assert.ok(events.slice(1).every(({ name, id, data }) => name === "message" && id === `${subscribed.data.epoch}:${data.offset}`));
  });

  await step("cut by the server it comes back by itself, with what it missed and nothing twice", async () => {
    await cut();
    for (let n = 21; n <= 30; n++) await send("room.1", n);
    const events = await seen(page, "one", 32);
    assert.equal(events[21].name, "subscribed");
    assert.equal(events[21].data.recovered, true, JSON.stringify(events[21]));
    assert.deepEqual(numbers(events), range(1, 30));
    assert.equal(await page.evaluate(() => window.one.errors), 1, "one cut, one reconnect");
  });

  await step("several groups in one EventSource: a cut loses nothing, and repeats are told by their offset", async () => {
    await page.evaluate(() => window.one.source.close());
    await listen(page, "three", ["room.2", "room.3", "plain"]);
    await seen(page, "three", 3);
    for (let n = 1; n <= 10; n++) for (const group of ["room.2", "room.3", "plain"]) await send(group, n);
    await seen(page, "three", 33);
    await cut();
    for (let n = 11; n <= 20; n++) for (const group of ["room.2", "room.3"]) await send(group, n);
    const complete = () => ["room.2", "room.3"].every((group) => window.three.events.some(({ data }) => data.group === group && data.offset === 20));
    await page.waitForFunction(complete, null, { timeout: DEADLINE });
    const events = await page.evaluate(() => window.three.events);
    for (const group of ["room.2", "room.3"]) {
      const again = events.filter(({ name, data }) => name === "subscribed" && data.group === group)[1];
      assert.equal(again.data.recovered, true, JSON.stringify(again));
      const offsets = events.filter(({ data }) => data.type === "message" && data.group === group).map(({ data }) => data.offset);
      assert.deepEqual([...new Set(offsets)], range(1, 20), `${group}: ${offsets}`);
    }
  });

  await step("a drain is told; the browser waits as long as it is asked to, and learns that memory forgets", async () => {
    await page.evaluate(() => window.three.source.close());
    await listen(page, "again", ["room.1"]);
    await seen(page, "again", 1);
    gateway.process.kill("SIGTERM");
    assert.equal(await gateway.ended, 0);
    gateway = await start(binary, folder, CONFIG, new URL(base).port);
    const events = await seen(page, "again", 3);
    assert.deepEqual(events.map(({ name, data }) => [name, data.type]), [["subscribed", "subscribed"], ["message", "closing"], ["subscribed", "subscribed"]]);
    assert.ok(events[1].data.retry_after_ms >= 0);
    assert.deepEqual([events[2].data.recovered, events[2].data.reason], [false, "epoch_changed"]);
  });
}

/** Opens an EventSource in the page, which keeps all that comes under this name. */
function listen(page, name, groups) {
  return page.evaluate(({ name, groups }) => {
    const source = new EventSource(`/v1/events?${groups.map((group) => `group=${group}`).join("&")}`);
    const kept = { source, events: [], errors: 0 };
    window[name] = kept;
    const keep = (event) => kept.events.push({ name: event.type, id: event.lastEventId, data: JSON.parse(event.data) });
    source.addEventListener("subscribed", keep);
    source.addEventListener("message", keep);
    source.addEventListener("error", () => { kept.errors += 1; });
  }, { name, groups });
}

/** All events, once there are so many. */
async function seen(page, name, count) {
  await page.waitForFunction(({ name, count }) => window[name].events.length >= count, { name, count }, { timeout: DEADLINE });
  return page.evaluate((name) => window[name].events, name);
}

async function send(group, n) {
  const headers = { "content-type": "application/json" };
  const reply = await fetch(`${base}/v1/groups/${group}/send`, { method: "POST", headers, body: JSON.stringify({ type: "tick", n }) });
  assert.equal(reply.status, 202);
}

/** Ends every connection, as an operator would. */
async function cut() {
  const { connections } = await (await fetch(`${base}/v1/connections`)).json();
  assert.ok(connections.length > 0);
  for (const { channel } of connections) {
    assert.equal((await fetch(`${base}/v1/connections/${channel}`, { method: "DELETE" })).status, 204);
  }
}

function numbers(events) {
  return events.filter(({ data }) => data.type === "message").map(({ data }) => data.message.n);
}

function range(first, last) {
  return Array.from({ length: last - first + 1 }, (_, at) => first + at);
}
