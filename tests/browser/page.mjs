// A page in a real Chromium, for tests that are written elsewhere: says what its sockets get, and what stands on it.
//
//     node page.mjs URL
//
// A line `frame …` for each frame of a WebSocket, a line `text …` whenever the text of the page is another. Goes on until it is killed.

import { chromium } from "playwright-core";

const [url] = process.argv.slice(2);
if (!url) {
  console.error("usage: node page.mjs URL");
  process.exit(2);
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-proxy-server"],
});
const page = await browser.newPage();
page.on("websocket", (socket) => {
  socket.on("framereceived", ({ payload }) => console.log("frame", payload));
  socket.on("close", () => console.log("closed", socket.url()));
});
page.on("pageerror", (error) => console.log("error", error.message));
await page.goto(url);
let last;
for (;;) {
  const text = await page.evaluate(() => document.body?.innerText ?? "");
  if (text !== last) console.log("text", text.replaceAll("\n", " "));
  last = text;
  await page.waitForTimeout(50);
}
