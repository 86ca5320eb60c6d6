#!/usr/bin/env bash
# Analyzes one image over NATS, with the nats command and jq: ./analyze.sh nats://127.0.0.1:4222 text page.png
set -euo pipefail
url=$1 pipeline=$2 file=$3

# The nats command changes or omits a file without these flags. With the key, a
# repeated request is the same job.
reply=$(nats --server "$url" request --raw --no-templates --force-stdin --timeout 35s \
  --header "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" "sight.v1.analyze.$pipeline" <"$file")
while [[ $(jq --raw-output .status <<<"$reply") =~ queued|running ]]; do # the job takes longer than the request waits
  sleep 1
  reply=$(nats --server "$url" request --raw "sight.v1.lookup.$(jq --raw-output .id <<<"$reply")" '')
done

# A reply with a code is a problem.
jq --raw-output 'if .code then "\(.code): \(.detail)\n" | halt_error
  elif .status == "failed" then "\(.problem.code): \(.problem.detail)\n" | halt_error else .regions[] end
  | "\(.box.x) \(.box.y) \(.box.width) \(.box.height) \(.text // .label)"' <<<"$reply"
