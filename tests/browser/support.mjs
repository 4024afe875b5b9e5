// What the tests in a browser share: a browser, a gateway of their own, and steps of which each is a line of output.

import { spawn } from "node:child_process";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { chromium } from "playwright-core";

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
}

export async function step(name, run) {
  try {
    await run();
  } catch (error) {
    throw new Error(`FAIL  ${name}\n      ${error.message.replaceAll("\n", "\n      ")}`);
  }
  console.log(`ok    ${name}`);
}

/** Starts a gateway in a folder, with `PORT` in the configuration replaced; port 0 is any. */
export async function start(binary, folder, config, port = 0) {
  await writeFile(path.join(folder, "groupcast.toml"), config.replaceAll("PORT", port));
  const started = spawn(path.resolve(binary), ["serve", "--config", "groupcast.toml"], { cwd: folder });
  const lines = [];
  const address = new Promise((resolve, reject) => {
    const look = (chunk) => {
      lines.push(chunk);
      const found = /http:\/\/127\.0\.0\.1:\d+/.exec(lines.join(""));
      if (found) resolve(found[0]);
    };
    started.stdout.setEncoding("utf8").on("data", look);
    started.stderr.setEncoding("utf8").on("data", (chunk) => lines.push(chunk));
    started.once("exit", () => reject(new Error(`FAIL  the gateway starts\n${lines.join("")}`)));
    started.once("error", reject);
  });
  const ended = new Promise((resolve) => { started.once("exit", resolve); });
  return { process: started, base: await address, ended, printed: () => lines.join("") };
}
