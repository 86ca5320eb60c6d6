// Submits an image, and waits for it with long polls, with fetch: node poll.mjs http://127.0.0.1:8080 text page.png
import {randomUUID} from "node:crypto";
import {readFile} from "node:fs/promises";
import {setTimeout as sleep} from "node:timers/promises";

const [url, pipeline, path] = process.argv.slice(2);

function fail(problem) {
  console.error(`${path}: ${problem.code}: ${problem.detail}`);
  process.exit(1);
}

// send makes a request. It retries a 429 or 503 after the seconds in Retry-After.
async function send(address, options) {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(address, options);
    const seconds = response.headers.get("Retry-After");
    if ([429, 503].includes(response.status) && seconds && attempt < 8) {
      await sleep(Number(seconds) * 1000);
      continue;
    }
    if (response.headers.get("Content-Type") === "application/problem+json") fail(await response.json());
    if (!response.ok) throw new Error(`${address}: ${response.status} ${response.statusText}`);
    return response;
  }
}

const accepted = await send(`${url}/v1/images?pipeline=${pipeline}`, {
  method: "POST", body: await readFile(path),
  headers: {"Content-Type": "image/*", Prefer: "respond-async", "Idempotency-Key": randomUUID()},
});
const address = new URL(accepted.headers.get("Location"), accepted.url);
let job = await accepted.json();
while (job.status === "queued" || job.status === "running") {
  job = await (await send(`${address}?wait=30`)).json(); // the response comes when the job ends, or after 30 s
}
if (job.status === "failed") fail(job.problem);
for (const {box, label, text} of job.regions) {
  console.log(box.x, box.y, box.width, box.height, text ?? label);
}
