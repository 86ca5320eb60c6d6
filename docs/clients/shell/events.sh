#!/usr/bin/env bash
# Submits an image, and prints its events, with curl and jq: ./events.sh http://127.0.0.1:8080 text page.png
set -euo pipefail
url=$1 pipeline=$2 file=$3
body=$(mktemp)
trap 'rm -f "$body"' EXIT

# --retry waits for the seconds in Retry-After. With the key, a repeated request is the same job.
curl --silent --show-error --fail-with-body --retry 8 --retry-max-time 120 --output "$body" \
  --request POST --upload-file "$file" --header "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" \
  --header 'Prefer: respond-async' "$url/v1/images?pipeline=$pipeline" ||
  { jq --raw-output '"\(.code): \(.detail)"' "$body" >&2; exit 1; }
job=$(jq --raw-output .id "$body")

last='' # ID of the last event: after a broken stream, the next request continues after it
while [ "$last" != end ]; do
  while IFS= read -r line; do
    case $line in
    'id: '*) last=${line#id: } ;;
    'event: '*) name=${line#event: } && echo "$name" ;;
    'data: '*) data=${line#data: } ;;
    esac
  done < <(curl --silent --show-error --no-buffer --fail --retry 8 --header "Last-Event-ID: $last" \
    "$url/v1/images/$job/events")
  wait $! || [[ $? =~ ^(18|56)$ ]] # exit statuses of a broken connection
done

jq --raw-output 'if .status == "failed" then "\(.problem.code): \(.problem.detail)\n" | halt_error else .regions[] end
  | "\(.box.x) \(.box.y) \(.box.width) \(.box.height) \(.text // .label)"' <<<"$data"
