# Analyzes many images over NATS, with nats-py: python3 bulk.py nats://127.0.0.1:4222 text *.png
import asyncio
import json
import sys
import uuid
from pathlib import Path

import nats

url, pipeline, *paths = sys.argv[1:]


async def analyze(connection: nats.NATS, path: str, free: asyncio.Semaphore) -> str:
    """Stores an image as a job of bulk priority, and returns a line with its outcome."""
    job = str(uuid.uuid4())
    async with free:
        results = await connection.subscribe(f"sight.v1.results.{pipeline}.{job}")  # before publishing the image
        try:
            await connection.jetstream().publish(
                f"sight.v1.images.{pipeline}.bulk.{job}", Path(path).read_bytes(), timeout=30, stream="IMAGES",
                headers={"Nats-Msg-Id": f"{job}.images", "Sight-Metadata": json.dumps({"file": path})})
            result = {"status": "queued"}
            while result["status"] in ("queued", "running"):
                try:
                    message = await results.next_msg(timeout=10)
                except nats.errors.TimeoutError:  # a message can be lost during a reconnect
                    message = await connection.request(f"sight.v1.lookup.{job}", timeout=10)
                result = json.loads(message.data)
        finally:
            await results.unsubscribe()
    if result["status"] == "failed":
        return f"{path} failed {result['problem']['code']}: {result['problem']['detail']}"
    return f"{path} done {len(result['regions'])} regions"


async def main() -> None:
    connection = await nats.connect(url)
    free = asyncio.Semaphore(16)  # images that the mesh has at a time
    for outcome in await asyncio.gather(*(analyze(connection, path, free) for path in paths)):
        print(outcome)
    await connection.drain()


asyncio.run(main())
