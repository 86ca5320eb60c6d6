// Submits an image, and prints its events, with fetch: node events.mjs http://127.0.0.1:8080 text page.png
import {randomUUID} from "node:crypto";
import {readFile} from "node:fs/promises";
import {setTimeout as sleep} from "node:timers/promises";
import {EventSourceParserStream} from "eventsource-parser/stream";

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

// events yields the events of a job. After a broken stream it continues with the next event.
async function* events(address) {
  for (let last = ""; last !== "end";) {
    const {body} = await send(`${address}/events`, {headers: last ? {"Last-Event-ID": last} : {}});
    const stream = body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
    try {
      for await (const event of stream) {
        last = event.id;
        yield {name: event.event, data: JSON.parse(event.data)};
      }
    } catch { // the stream broke
      await sleep(1000);
    }
  }
}

const accepted = await send(`${url}/v1/images?pipeline=${pipeline}`, {
  method: "POST", body: await readFile(path),
  headers: {"Content-Type": "image/*", Prefer: "respond-async", "Idempotency-Key": randomUUID()},
});
for await (const {name, data} of events(new URL(accepted.headers.get("Location"), accepted.url))) {
  console.log(name);
  if (name === "failed") fail(data.problem);
  for (const {box, label, text} of data.regions ?? []) {
    console.log(box.x, box.y, box.width, box.height, text ?? label);
  }
}
