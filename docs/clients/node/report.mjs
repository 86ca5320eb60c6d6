// Analyzes many images as one report, with fetch: node report.mjs http://127.0.0.1:8080 text *.png
import {randomUUID} from "node:crypto";
import {readFile} from "node:fs/promises";
import {basename} from "node:path";
import {setTimeout as sleep} from "node:timers/promises";

const [url, pipeline, ...paths] = process.argv.slice(2);

// send makes a request. It retries a 429 or 503 after the seconds in Retry-After.
async function send(address, options) {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(address, options);
    const seconds = response.headers.get("Retry-After");
    if ([429, 503].includes(response.status) && seconds && attempt < 8) {
      await sleep(Number(seconds) * 1000);
      continue;
    }
    if (response.headers.get("Content-Type") === "application/problem+json") {
      const problem = await response.json();
      console.error(`report: ${problem.code}: ${problem.detail}`);
      process.exit(1);
    }
    if (!response.ok) throw new Error(`${address}: ${response.status} ${response.statusText}`);
    return response;
  }
}

// A form can have 64 MiB and 1,000 images. For more bytes, send JSON with the URLs of the images.
const form = new FormData();
for (const path of paths) form.append("image", new Blob([await readFile(path)]), basename(path));
const accepted = await send(`${url}/v1/reports?pipeline=${pipeline}`, {
  method: "POST", body: form, headers: {"Idempotency-Key": randomUUID(), "X-Sight-Meta-From": "report.mjs"},
});
const address = new URL(accepted.headers.get("Location"), accepted.url);

// The event stream ends when the report is done. A broken stream is opened again.
for (let done = false; !done;) {
  const events = await (await send(`${address}/events`)).text().catch(() => "");
  done = events.includes("\nevent: done\n");
}
const report = await (await send(address)).json();
report.images.forEach(({status, result}, n) => {
  if (status === "done") console.log(`${paths[n]} done ${result.regions.length} regions`);
  else console.log(`${paths[n]} ${status} ${result.problem.code}: ${result.problem.detail}`);
});
