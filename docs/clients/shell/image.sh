#!/usr/bin/env bash
# Analyzes one image, with curl and jq: ./image.sh http://127.0.0.1:8080 text page.png
set -euo pipefail
url=$1 pipeline=$2 file=$3
body=$(mktemp)
trap 'rm -f "$body"' EXIT

# --retry waits for the seconds in Retry-After. With the key, a repeated request is the same job.
curl --silent --show-error --fail-with-body --retry 8 --retry-max-time 120 --output "$body" \
  --request POST --upload-file "$file" --header "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" \
  --header 'Prefer: wait=60' "$url/v1/images?pipeline=$pipeline" ||
  { jq --raw-output '"\(.code): \(.detail)"' "$body" >&2; exit 1; }

jq --raw-output 'if .status != "done" then "\(.id) is \(.status)\n" | halt_error else .regions[] end
  | "\(.box.x) \(.box.y) \(.box.width) \(.box.height) \(.text // .label)"' "$body"
