#!/usr/bin/env bash
# Analyzes many images as one report, with curl and jq: ./report.sh http://127.0.0.1:8080 text *.png
set -euo pipefail
url=$1 pipeline=$2
shift 2
body=$(mktemp)
trap 'rm -f "$body"' EXIT

# --retry waits for the seconds in Retry-After. With the key, a repeated request is the same report.
send() {
  curl --silent --show-error --fail-with-body --retry 8 --retry-max-time 120 --output "$body" "$@" ||
    { jq --raw-output '"\(.code): \(.detail)"' "$body" >&2; exit 1; }
}

form=() # at most 64 MiB and 1,000 images; for more bytes, send JSON with the URLs of the images
for file in "$@"; do form+=(--form "image=@\"$file\""); done
send "${form[@]}" --header "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" \
  --header 'X-Sight-Meta-From: report.sh' "$url/v1/reports?pipeline=$pipeline"
report=$(jq --raw-output .id "$body")

# The events end when the report is done. A broken stream is opened again.
until curl --silent --no-buffer --retry 8 "$url/v1/reports/$report/events" | grep '^event: done$' >/dev/null; do :; done
send "$url/v1/reports/$report"
jq --raw-output '.images[] | if .status == "done" then "done \(.result.regions | length) regions"
  else "\(.status) \(.result.problem.code): \(.result.problem.detail)" end' "$body" |
  paste -d ' ' <(printf '%s\n' "$@") -
