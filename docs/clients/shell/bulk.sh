#!/usr/bin/env bash
# Analyzes many images over NATS, with the nats command and jq: ./bulk.sh nats://127.0.0.1:4222 text *.png
set -euo pipefail
url=$1 pipeline=$2
shift 2
run=$(cat /proc/sys/kernel/random/uuid)

n=0
for file in "$@"; do # the command stores a job of bulk priority, and waits for the acknowledgement
  nats --server "$url" publish --jetstream --no-templates --force-stdin --header "Nats-Msg-Id:$run-$n.images" \
    "sight.v1.images.$pipeline.bulk.$run-$n" <"$file" >/dev/null 2>&1
  n=$((n + 1))
done

n=0
for file in "$@"; do
  until result=$(nats --server "$url" request --raw "sight.v1.lookup.$run-$n" '') &&
    [[ $(jq --raw-output .status <<<"$result") =~ done|failed ]]; do sleep 1; done
  jq --raw-output --arg file "$file" 'if .status == "done" then "\($file) done \(.regions | length) regions"
    else "\($file) failed \(.problem.code): \(.problem.detail)" end' <<<"$result"
  n=$((n + 1))
done
