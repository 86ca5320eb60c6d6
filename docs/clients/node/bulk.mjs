// Analyzes many images over NATS, with @nats-io: node bulk.mjs nats://127.0.0.1:4222 text *.png
import {randomUUID} from "node:crypto";
import {readFile} from "node:fs/promises";
import {jetstream} from "@nats-io/jetstream";
import {connect, headers} from "@nats-io/transport-node";

const [url, pipeline, ...paths] = process.argv.slice(2);
const connection = await connect({servers: url});
const stream = jetstream(connection);

// analyze stores an image as a job of bulk priority, and returns its result.
async function analyze(path) {
  const job = randomUUID();
  const results = connection.subscribe(`sight.v1.results.${pipeline}.${job}`, {max: 1}); // before publishing the image
  const head = headers();
  head.set("Sight-Metadata", JSON.stringify({file: path}));
  await stream.publish(`sight.v1.images.${pipeline}.bulk.${job}`, await readFile(path),
    {msgID: `${job}.images`, headers: head, timeout: 30_000, expect: {streamName: "IMAGES"}});
  // A message can be lost during a reconnect: the look-up has the result, too.
  const look = setInterval(async () => {
    const state = (await connection.request(`sight.v1.lookup.${job}`, "", {timeout: 5_000})).json();
    if (state.status === "done" || state.status === "failed") results.unsubscribe();
  }, 10_000);
  for await (const message of results) {
    clearInterval(look);
    return message.json();
  }
  clearInterval(look);
  return (await connection.request(`sight.v1.lookup.${job}`, "", {timeout: 5_000})).json();
}

const outcomes = new Map();
const waiting = [...paths];
await Promise.all(Array.from({length: 16}, async () => { // images that the mesh has at a time
  for (let path; (path = waiting.shift()) !== undefined;) outcomes.set(path, await analyze(path));
}));
for (const path of paths) {
  const {status, regions, problem} = outcomes.get(path);
  if (status === "done") console.log(`${path} done ${regions.length} regions`);
  else console.log(`${path} failed ${problem.code}: ${problem.detail}`);
}
await connection.drain();
