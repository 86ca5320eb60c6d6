#!/usr/bin/env bash
# Submits an image, and waits for it with long polls, with curl and jq: ./poll.sh http://127.0.0.1:8080 text page.png
set -euo pipefail
url=$1 pipeline=$2 file=$3
body=$(mktemp)
trap 'rm -f "$body"' EXIT

# --retry waits for the seconds in Retry-After. With the key, a repeated request is the same job.
send() {
  curl --silent --show-error --fail-with-body --retry 8 --retry-max-time 120 --output "$body" "$@" ||
    { jq --raw-output '"\(.code): \(.detail)"' "$body" >&2; exit 1; }
}

send --request POST --upload-file "$file" --header "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" \
  --header 'Prefer: respond-async' "$url/v1/images?pipeline=$pipeline"
job=$(jq --raw-output .id "$body")
while jq --exit-status '.status == "queued" or .status == "running"' "$body" >/dev/null; do
  send "$url/v1/images/$job?wait=30" # the response comes when the job ends, or after 30 s
done

jq --raw-output 'if .status == "failed" then "\(.problem.code): \(.problem.detail)\n" | halt_error else .regions[] end
  | "\(.box.x) \(.box.y) \(.box.width) \(.box.height) \(.text // .label)"' "$body"
