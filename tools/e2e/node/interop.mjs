// Uses a mesh as a program in another language does: with the public NATS client, the
// subjects of the contract and the schemas, and nothing else.
//
//   node interop.mjs NATS-URL IMAGE PIPELINE SCHEMA-FOLDER
//
// Prints the two results as JSON lines, and ends with an error when a message does not
// follow the contract.
import "./webcrypto.mjs";
import {connect, headers} from "@nats-io/transport-node";
import {jetstream} from "@nats-io/jetstream";
import Ajv from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import {randomUUID} from "node:crypto";
import {readFileSync} from "node:fs";

const [url, file, pipeline, schemas] = process.argv.slice(2);
const ajv = new Ajv({strict: false});
addFormats(ajv);
const check = name => {
  const valid = ajv.compile(JSON.parse(readFileSync(`${schemas}/${name}.json`)));
  return value => {
    if (!valid(value)) throw new Error(`${name}: ${ajv.errorsText(valid.errors)}`);
    return value;
  };
};
const isResult = check("result"), isProblem = check("problem"), isEvent = check("event");

const nc = await connect({servers: url, timeout: 10_000});
const image = readFileSync(file);

// 1. A request: the reply is the result or a problem.
async function analyze(pipeline, body) {
  const m = await nc.request(`sight.v1.analyze.${pipeline}`, body, {timeout: 60_000});
  if (m.headers?.get("Nats-Service-Error-Code")) return isProblem(m.json());
  return isResult(m.json());
}
const replied = await analyze(pipeline, image);
if (replied.status !== "done") throw new Error(`reply: ${JSON.stringify(replied)}`);
const rejected = await analyze(pipeline, "no image");
if (rejected.code !== "unsupported-type") throw new Error(`no image: ${JSON.stringify(rejected)}`);

// 2. A job: the image is stored, and the result comes as a message.
const job = randomUUID();
const results = nc.subscribe(`sight.v1.results.${pipeline}.${job}`, {max: 1});
const events = nc.subscribe(`sight.v1.events.${job}`);
const h = headers();
h.set("Sight-Metadata", JSON.stringify({from: "node"}));
const ack = await jetstream(nc).publish(`sight.v1.images.${pipeline}.bulk.${job}`, image,
  {msgID: `${job}.images`, headers: h});
if (ack.stream !== "IMAGES") throw new Error(`stored in ${ack.stream}`);
let published;
for await (const m of results) published = isResult(m.json());
if (published.id !== job || published.status !== "done" || published.metadata?.from !== "node") {
  throw new Error(`published: ${JSON.stringify(published)}`);
}
if (JSON.stringify(published.regions) !== JSON.stringify(replied.regions)) throw new Error("the regions of the two results differ");
for await (const m of events) {
  const e = isEvent(m.json());
  if (e.event === "done") break;
}

// 3. A look-up: the result is stored for clients that have missed the message.
const kept = isResult((await nc.request(`sight.v1.lookup.${job}`, "", {timeout: 10_000})).json());
if (kept.status !== "done") throw new Error(`kept: ${JSON.stringify(kept)}`);

console.log(JSON.stringify(replied));
console.log(JSON.stringify(published));
await nc.drain();
