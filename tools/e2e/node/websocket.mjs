// Speaks to a mesh as a web page does: with the public NATS client for browsers, over a
// WebSocket.
//
//   node websocket.mjs WEBSOCKET-URL PICTURE PIPELINE
//
// Prints the two results as JSON lines: of a request that waits, and of one that does not.
import "./webcrypto.mjs";
import {headers, wsconnect} from "@nats-io/nats-core";
import WebSocket from "ws";
import {readFileSync} from "node:fs";

globalThis.WebSocket ??= WebSocket; // which browsers have, and Node.js from version 22 on

const [url, file, pipeline] = process.argv.slice(2);
const image = readFileSync(file);
const nc = await wsconnect({servers: url, timeout: 10_000});

async function analyze(fields) {
  const h = headers();
  for (const [name, value] of Object.entries(fields)) h.set(name, value);
  const m = await nc.request(`sight.v1.analyze.${pipeline}`, image, {timeout: 60_000, headers: h});
  if (m.headers?.get("Nats-Service-Error-Code")) throw new Error(m.string());
  return m.json();
}

console.log(JSON.stringify(await analyze({})));

const job = await analyze({"Prefer": "respond-async", "Sight-Priority": "bulk", "X-Sight-Meta-Page": "3"});
if (job.status !== "queued") throw new Error(`not waited for: ${JSON.stringify(job)}`);
const events = nc.subscribe(`sight.v1.events.${job.id}`);
const lookup = async () => (await nc.request(`sight.v1.lookup.${job.id}`, "", {timeout: 10_000})).json();
let result = await lookup(); // what has happened before the subscription
if (result.status === "queued" || result.status === "running") {
  for await (const m of events) {
    if (["done", "failed"].includes(m.json().event)) break;
  }
  result = await lookup();
}
console.log(JSON.stringify(result));
await nc.drain();
