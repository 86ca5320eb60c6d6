# Analyzes many images as one report, with requests: python3 report.py http://127.0.0.1:8080 text *.png
import sys
import uuid
from pathlib import Path
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

url, pipeline, *paths = sys.argv[1:]

# Retry waits for the seconds in Retry-After. With the key, a repeated request is the same report.
again = Retry(total=8, backoff_factor=0.5, status_forcelist=[429, 503], allowed_methods=None, raise_on_status=False)
mesh = requests.Session()
mesh.mount(url, HTTPAdapter(max_retries=again))


def check(response: requests.Response) -> requests.Response:
    if response.headers.get("Content-Type") == "application/problem+json":
        problem = response.json()
        sys.exit(f"report: {problem['code']}: {problem['detail']}")
    response.raise_for_status()
    return response


# A form can have 64 MiB and 1,000 images. For more bytes, send JSON with the URLs of the images.
form = [("image", (Path(path).name, Path(path).read_bytes())) for path in paths]
accepted = check(mesh.post(f"{url}/v1/reports", params={"pipeline": pipeline}, files=form, timeout=90,
                           headers={"Idempotency-Key": str(uuid.uuid4()), "X-Sight-Meta-From": "report.py"}))
address = urljoin(url, accepted.headers["Location"])
done = False
while not done:  # a broken event stream is opened again
    try:
        with check(mesh.get(f"{address}/events", stream=True, timeout=60)) as events:
            done = any(line == "event: done" for line in events.iter_lines(decode_unicode=True))
    except requests.exceptions.ChunkedEncodingError:
        pass
report = check(mesh.get(address, timeout=90)).json()

for path, image in zip(paths, report["images"]):
    if image["status"] == "failed":
        problem = image["result"]["problem"]
        print(path, "failed", f"{problem['code']}: {problem['detail']}")
    else:
        print(path, "done", len(image["result"]["regions"]), "regions")
