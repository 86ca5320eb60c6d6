# Analyzes one image over NATS, with nats-py: python3 analyze.py nats://127.0.0.1:4222 text page.png
import asyncio
import json
import sys
import uuid

import nats

url, pipeline, path = sys.argv[1:]


async def main() -> None:
    with open(path, "rb") as file:
        image = file.read()
    connection = await nats.connect(url)
    key = {"Idempotency-Key": str(uuid.uuid4())}  # a repeated request is the same job
    for _ in range(8):
        try:
            reply = await connection.request(f"sight.v1.analyze.{pipeline}", image, timeout=35, headers=key)
        except nats.errors.NoRespondersError:
            sys.exit(f"{path}: no ingress is connected to {url}")
        headers = reply.headers or {}
        if "Retry-After" not in headers:
            break
        await asyncio.sleep(int(headers["Retry-After"]))
    result = json.loads(reply.data)
    if "Nats-Service-Error-Code" in headers:
        sys.exit(f"{path}: {result['code']}: {result['detail']}")
    while result["status"] in ("queued", "running"):  # the job takes longer than the request waits
        await asyncio.sleep(1)
        result = json.loads((await connection.request(f"sight.v1.lookup.{result['id']}", timeout=10)).data)
    if result["status"] == "failed":
        sys.exit(f"{path}: {result['problem']['code']}: {result['problem']['detail']}")
    for region in result["regions"]:
        box = region["box"]
        print(box["x"], box["y"], box["width"], box["height"], region.get("text", region["label"]))
    await connection.drain()


asyncio.run(main())
