// Sends frames in order over a WebSocket, with ws: node session.mjs http://127.0.0.1:8080 text *.png
import {readFile} from "node:fs/promises";
import {setTimeout as sleep} from "node:timers/promises";
import WebSocket from "ws";

const [url, pipeline, ...paths] = process.argv.slice(2);

// connect opens a session whose first frame has the number first. If the mesh has no room for it, connect returns the
// seconds to wait.
function connect(first) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`${url.replace(/^http/, "ws")}/v1/stream?pipeline=${pipeline}&from=${first}`);
    socket.once("open", () => resolve({socket})).once("error", reject);
    socket.once("unexpected-response", (request, {statusCode, headers}) => {
      request.destroy();
      if ([429, 503].includes(statusCode) && headers["retry-after"]) resolve({seconds: Number(headers["retry-after"])});
      else reject(new Error(`session: ${statusCode}`));
    });
  });
}

// run sends the frames from first on, and prints their outcomes. It returns the number of the next frame.
async function run(socket, first) {
  const send = async () => {
    for (const path of paths.slice(first)) {
      const image = await readFile(path);
      await new Promise((sent, failed) => socket.send(image, error => error ? failed(error) : sent()));
    }
    socket.send(JSON.stringify({end: true}));
  };
  const sent = send().catch(() => socket.terminate()); // the session broke
  let next = first;
  const closed = new Promise(resolve => socket.once("close", resolve).on("error", () => {}));
  socket.on("message", message => {
    const outcome = JSON.parse(message);
    if (outcome.end !== undefined) {
      if (outcome.problem) console.error(`session: ${outcome.problem.code}: ${outcome.problem.detail}`);
      return;
    }
    next = outcome.frame + 1;
    if (outcome.status === "done") console.log(`${outcome.frame} done ${outcome.result.regions.length} regions`);
    else console.log(`${outcome.frame} ${outcome.status} ${outcome.problem?.code}: ${outcome.problem?.detail}`);
  });
  const code = await closed;
  await sent;
  if (code === 1008 || code === 1009) process.exit(1); // another session would end in the same way
  return next;
}

for (let next = 0; next < paths.length;) { // after a broken session, continue after the last outcome
  const {socket, seconds} = await connect(next);
  if (socket) next = await run(socket, next);
  else await sleep(seconds * 1000);
}
