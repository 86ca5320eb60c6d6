# Sends frames in order over a WebSocket, with aiohttp: python3 session.py http://127.0.0.1:8080 text *.png
import asyncio
import sys
from pathlib import Path

import aiohttp

url, pipeline, *paths = sys.argv[1:]


async def connect(http: aiohttp.ClientSession, first: int) -> aiohttp.ClientWebSocketResponse:
    """Opens a session whose first frame has the number first."""
    for _ in range(8):
        try:
            return await http.ws_connect(f"{url}/v1/stream?pipeline={pipeline}&from={first}", max_msg_size=0)
        except aiohttp.WSServerHandshakeError as rejection:
            if rejection.status not in (429, 503) or "Retry-After" not in rejection.headers:
                raise
            await asyncio.sleep(int(rejection.headers["Retry-After"]))
    sys.exit("session: the mesh is busy")


async def send(session: aiohttp.ClientWebSocketResponse, first: int) -> None:
    for path in paths[first:]:
        await session.send_bytes(Path(path).read_bytes())  # blocks while the mesh processes a full window
    await session.send_json({"end": True})


async def main() -> None:
    first, ended = 0, False
    async with aiohttp.ClientSession() as http:
        while not ended:  # after a broken session, continue after the last outcome
            async with await connect(http, first) as session:
                sender = asyncio.create_task(send(session, first))
                async for message in session:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        break
                    outcome = message.json()
                    if "end" in outcome:
                        ended = outcome["end"]
                        if problem := outcome.get("problem"):
                            print(f"session: {problem['code']}: {problem['detail']}", file=sys.stderr)
                            ended = problem["code"] not in ("unavailable", "overloaded")
                        break
                    first = outcome["frame"] + 1
                    if outcome["status"] == "done":
                        print(outcome["frame"], "done", len(outcome["result"]["regions"]), "regions")
                    else:
                        problem = outcome.get("problem", {"code": outcome["status"], "detail": ""})
                        print(outcome["frame"], outcome["status"], f"{problem['code']}: {problem['detail']}")
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)


asyncio.run(main())
