# Submits an image, and prints its events, with aiohttp: python3 events.py http://127.0.0.1:8080 text page.png
import asyncio
import json
import sys
import uuid
from urllib.parse import urljoin

import aiohttp

url, pipeline, path = sys.argv[1:]


async def check(response: aiohttp.ClientResponse) -> None:
    if response.content_type == "application/problem+json":
        problem = await response.json()
        sys.exit(f"{path}: {problem['code']}: {problem['detail']}")
    response.raise_for_status()


async def submit(mesh: aiohttp.ClientSession, image: bytes) -> str:
    """Submits an image, and returns the address of its job."""
    headers = {"Content-Type": "image/*", "Idempotency-Key": str(uuid.uuid4()), "Prefer": "respond-async"}
    address = f"{url}/v1/images?pipeline={pipeline}"
    for _ in range(8):
        async with mesh.post(address, data=image, headers=headers) as response:
            if response.status in (429, 503) and "Retry-After" in response.headers:
                await asyncio.sleep(int(response.headers["Retry-After"]))
                continue
            await check(response)
            return urljoin(str(response.url), response.headers["Location"])
    sys.exit(f"{path}: the mesh is busy")


async def events(mesh: aiohttp.ClientSession, job: str):
    """Yields (name, data) of each event. After a broken stream it continues with the next event."""
    last = ""
    while last != "end":
        async with mesh.get(f"{job}/events", headers={"Last-Event-ID": last} if last else {}) as response:
            if response.status in (429, 503) and "Retry-After" in response.headers:
                await asyncio.sleep(int(response.headers["Retry-After"]))
                continue
            await check(response)
            event = {}
            try:
                async for line in response.content:
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    if name:  # a comment has none
                        event[name] = value
                    elif event and not value:  # an empty line ends an event
                        last = event["id"]
                        yield event["event"], json.loads(event["data"])
                        event = {}
            except aiohttp.ClientPayloadError:  # the stream broke
                await asyncio.sleep(1)


async def main() -> None:
    with open(path, "rb") as file:
        image = file.read()
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)  # a comment comes every 10 s
    async with aiohttp.ClientSession(timeout=timeout, read_bufsize=16 << 20) as mesh:
        async for name, data in events(mesh, await submit(mesh, image)):
            print(name)
            if name == "failed":
                sys.exit(f"{path}: {data['problem']['code']}: {data['problem']['detail']}")
            if name == "done":
                for region in data["regions"]:
                    box = region["box"]
                    print(box["x"], box["y"], box["width"], box["height"], region.get("text", region["label"]))


asyncio.run(main())
