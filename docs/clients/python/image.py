# Analyzes one image, with requests: python3 image.py http://127.0.0.1:8080 text page.png
import sys
import uuid

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

url, pipeline, path = sys.argv[1:]

# Retry waits for the seconds in Retry-After. With the key, a repeated request is the same job.
again = Retry(total=8, backoff_factor=0.5, status_forcelist=[429, 503], allowed_methods=None, raise_on_status=False)
mesh = requests.Session()
mesh.mount(url, HTTPAdapter(max_retries=again))

with open(path, "rb") as file:
    image = file.read()
response = mesh.post(f"{url}/v1/images", params={"pipeline": pipeline}, data=image, timeout=90,
                     headers={"Content-Type": "image/*", "Idempotency-Key": str(uuid.uuid4()), "Prefer": "wait=60"})
if response.headers.get("Content-Type") == "application/problem+json":
    problem = response.json()
    sys.exit(f"{path}: {problem['code']}: {problem['detail']}")
response.raise_for_status()
if response.status_code == 202:
    sys.exit(f"{path}: not done after 60 s; ask later at {response.headers['Location']}")

for region in response.json()["regions"]:
    box = region["box"]
    print(box["x"], box["y"], box["width"], box["height"], region.get("text", region["label"]))
