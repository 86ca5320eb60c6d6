// Analyzes one image, with fetch: node image.mjs http://127.0.0.1:8080 text page.png
import {randomUUID} from "node:crypto";
import {readFile} from "node:fs/promises";
import {setTimeout as sleep} from "node:timers/promises";

const [url, pipeline, path] = process.argv.slice(2);
// With the key, a repeated request is the same job.
const headers = {"Content-Type": "image/*", Prefer: "wait=60", "Idempotency-Key": randomUUID()};

async function post(image) {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(`${url}/v1/images?pipeline=${pipeline}`, {method: "POST", body: image, headers});
    const seconds = response.headers.get("Retry-After");
    if (![429, 503].includes(response.status) || !seconds || attempt === 8) return response;
    await sleep(Number(seconds) * 1000);
  }
}

const response = await post(await readFile(path));
const result = await response.json();
if (response.headers.get("Content-Type") === "application/problem+json") {
  console.error(`${path}: ${result.code}: ${result.detail}`);
  process.exit(1);
}
if (response.status === 202) {
  console.error(`${path}: not done after 60 s; ask later at ${response.headers.get("Location")}`);
  process.exit(1);
}
for (const {box, label, text} of result.regions) {
  console.log(box.x, box.y, box.width, box.height, text ?? label);
}
