# Submits an image, and waits for it with long polls, with httpx: python3 poll.py http://127.0.0.1:8080 text page.png
import asyncio
import sys
import uuid

import httpx

url, pipeline, path = sys.argv[1:]


async def send(mesh: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """Sends a request. It retries a 429 or 503 after the seconds in Retry-After."""
    for _ in range(8):
        response = await mesh.send(request)
        if response.status_code not in (429, 503) or "Retry-After" not in response.headers:
            break
        await asyncio.sleep(int(response.headers["Retry-After"]))
    if response.headers.get("Content-Type") == "application/problem+json":
        problem = response.json()
        sys.exit(f"{path}: {problem['code']}: {problem['detail']}")
    return response.raise_for_status()


async def main() -> None:
    with open(path, "rb") as file:
        image = file.read()
    async with httpx.AsyncClient(base_url=url, timeout=90) as mesh:
        accepted = await send(mesh, mesh.build_request(
            "POST", "/v1/images", params={"pipeline": pipeline}, content=image,
            headers={"Content-Type": "image/*", "Idempotency-Key": str(uuid.uuid4()), "Prefer": "respond-async"}))
        job = accepted.json()
        while job["status"] in ("queued", "running"):  # the response comes when the job ends, or after 30 s
            poll = mesh.build_request("GET", accepted.headers["Location"], params={"wait": 30})
            job = (await send(mesh, poll)).json()
    if job["status"] == "failed":
        sys.exit(f"{path}: {job['problem']['code']}: {job['problem']['detail']}")
    for region in job["regions"]:
        box = region["box"]
        print(box["x"], box["y"], box["width"], box["height"], region.get("text", region["label"]))


asyncio.run(main())
