#!/usr/bin/env python3
"""A lane program that needs nothing but Python. It finds one region, the whole image,
and names its main colour. It reads uncompressed 24-bit BMP files."""
import json
import socket
import struct
import sys

PROTOCOL = 1
COLOURS = {
    "black": (0, 0, 0), "white": (255, 255, 255), "grey": (128, 128, 128), "red": (220, 30, 30),
    "green": (30, 160, 30), "blue": (30, 30, 220), "yellow": (230, 220, 40),
}


def read_exactly(sock, n):
    data = bytearray()
    while len(data) < n:
        more = sock.recv(n - len(data))
        if not more:
            sys.exit(0)  # the worker has closed the socket
        data += more
    return bytes(data)


def read_frame(sock):
    facts, pixels = struct.unpack(">II", read_exactly(sock, 8))
    return json.loads(read_exactly(sock, facts)), read_exactly(sock, pixels)


def write_frame(sock, facts, pixels=b""):
    body = json.dumps(facts).encode()
    sock.sendall(struct.pack(">II", len(body), len(pixels)) + body + pixels)


def mean_colour(bmp):
    if bmp[:2] != b"BM":
        raise ValueError("not a BMP file")
    (offset,) = struct.unpack_from("<I", bmp, 10)
    width, height, _, depth, compression = struct.unpack_from("<iiHHI", bmp, 18)
    if depth != 24 or compression != 0 or width < 1:
        raise ValueError("only uncompressed BMP files with 24 bits are supported")
    row, totals = (width * 3 + 3) // 4 * 4, [0, 0, 0]
    for y in range(abs(height)):
        line = bmp[offset + y * row : offset + y * row + width * 3]
        for i in range(3):
            totals[i] += sum(line[i::3])
    blue, green, red = (t / (width * abs(height)) for t in totals)
    return width, abs(height), (red, green, blue)


def detect(request, image):
    try:
        width, height, mean = mean_colour(image)
    except (ValueError, struct.error) as e:
        return {"type": "failed", "id": request["id"], "code": "damaged", "detail": str(e)}
    distance = {name: sum((a - b) ** 2 for a, b in zip(mean, rgb)) ** 0.5 for name, rgb in COLOURS.items()}
    label = min(distance, key=distance.get)
    region = {
        "box": {"x": 0, "y": 0, "width": width, "height": height},
        "score": round(1 - distance[label] / 442, 3),  # 442: from black to white
        "label": label,
    }
    return {
        "type": "detected", "id": request["id"], "width": width, "height": height,
        "regions": [region], "timing": {"infer_ms": 0},
    }


def main():
    sock = socket.socket(fileno=3)
    start, _ = read_frame(sock)
    loaded = {name: {"models": [{"name": "mean-colour", "version": "1"}]} for name in start["pipelines"]}
    write_frame(sock, {"type": "ready", "protocol": PROTOCOL, "pipelines": loaded})
    while True:
        request, image = read_frame(sock)
        write_frame(sock, detect(request, image))


if __name__ == "__main__":
    main()
