#!/usr/bin/env python3
"""A lane for detect and classify that finds three regions in every image at once.

An image is a BMP file of tools/internal/chaos. Its first twelve pixel bytes are
three codes of four bytes. Detect gives one region and one crop for each code;
classify labels a crop with its code in hexadecimal. The result is thus known
before the image is sent, and no other image has the same one.
"""
import json
import socket
import struct
import sys
import time

WORK = 0.005  # seconds that a request takes, so that a fault finds some under way
CODES, SIZE = 3, 4


def read_exactly(sock, n):
    data = bytearray()
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            sys.exit(0)
        data += more
    return bytes(data)


def read_frame(sock):
    facts, pixels = struct.unpack(">II", read_exactly(sock, 8))
    return json.loads(read_exactly(sock, facts)), read_exactly(sock, pixels)


def write_frame(sock, facts, pixels=b""):
    body = json.dumps(facts).encode()
    sock.sendall(struct.pack(">II", len(body), len(pixels)) + body + pixels)


def detect(request, bmp):
    (offset,) = struct.unpack_from("<I", bmp, 10)
    width, height = struct.unpack_from("<ii", bmp, 18)
    regions = [
        {"box": {"x": SIZE * i, "y": 0, "width": SIZE, "height": SIZE}, "score": 0.9, "label": "code"}
        for i in range(CODES)
    ]
    crops = [{"region": i, "width": SIZE, "height": 1, "channels": 1} for i in range(CODES)]
    facts = {
        "type": "detected", "id": request["id"], "width": width, "height": height,
        "regions": regions, "crops": crops, "timing": {"infer_ms": 1},
    }
    return facts, bmp[offset : offset + CODES * SIZE]


def classify(request, pixels):
    answers = [
        {"region": crop["region"], "labels": [{"label": pixels[SIZE * i : SIZE * i + SIZE].hex(), "score": 0.9}]}
        for i, crop in enumerate(request["crops"])
    ]
    return {"type": "classified", "id": request["id"], "answers": answers, "timing": {"infer_ms": 1}}, b""


def main():
    sock = socket.socket(fileno=3)
    start, _ = read_frame(sock)
    loaded = {name: {"models": [{"name": "codes", "version": "1"}]} for name in start["pipelines"]}
    write_frame(sock, {"type": "ready", "protocol": 1, "pipelines": loaded})
    while True:
        request, pixels = read_frame(sock)
        time.sleep(WORK)
        facts, out = (detect if request["type"] == "detect" else classify)(request, pixels)
        write_frame(sock, facts, out)


if __name__ == "__main__":
    main()
