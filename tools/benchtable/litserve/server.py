"""Serves the networks of a model folder with LitServe, for benchtable.

The pipelines are the measured pipelines of the mesh. An image is decoded and fitted into the
input of the network, and the outputs of the network are decoded, as the mesh does it. The
settings are those of model.yaml. A response is a part of a result of the mesh: regions with box,
score and label or text. A worker is a process that runs each network on one thread, as a lane.
"""

import argparse
import pathlib
from typing import Annotated

import cv2
import litserve
import numpy as np
import onnx
import onnxruntime
import yaml
from fastapi import Body


class Network:
    """A network of a model folder."""

    def __init__(self, folder):
        self.model = yaml.safe_load((folder / "model.yaml").read_text())
        self.threshold = self.model["threshold"]
        field = self.model["input"]
        self.width, self.height = field["width"], field["height"]
        self.pad = field.get("pad", 0)
        self.mean = np.array(field.get("mean", [0, 0, 0]), np.float32)
        self.std = np.array(field.get("std", [1, 1, 1]), np.float32)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        file = folder / self.model["weights"]
        weights = self.resized(file) if field.get("resizable") else file
        self.session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.outputs = [o.name for o in self.session.get_outputs()]

    def resized(self, file):
        """Returns a network with the input size of the model. Its file declares another size."""
        network = onnx.load(file)
        height, width = network.graph.input[0].type.tensor_type.shape.dim[2:]
        height.dim_value, width.dim_value = self.height, self.width
        for output in network.graph.output:
            output.type.tensor_type.ClearField("shape")
        network.graph.ClearField("value_info")
        return network.SerializeToString()

    def run(self, image):
        """Runs the network on an image of its size, in the order blue, green and red."""
        numbers = image.astype(np.float32)
        if (self.mean != 0).any() or (self.std != 1).any():
            numbers = (numbers - self.mean) / self.std
        outputs = self.session.run(self.outputs, {self.input: numbers.transpose(2, 0, 1)[None]})
        return dict(zip(self.outputs, outputs))

    def letterbox(self, image):
        """Fits an image into the input at the top left, and returns it with its scale."""
        height, width = image.shape[:2]
        scale = min(self.width / width, self.height / height)
        small = cv2.resize(image, (round(width * scale), round(height * scale)))
        fitted = np.full((self.height, self.width, 3), self.pad, np.uint8)
        fitted[: small.shape[0], : small.shape[1]] = small
        return fitted, scale


def cells(network, stride):
    """Returns the column and the row of each cell of a stride."""
    rows, columns = network.height // stride, network.width // stride
    y, x = np.mgrid[:rows, :columns]
    return np.stack([x.ravel(), y.ravel()], 1)


def surest(network, boxes, scores, classes):
    """Returns the indices of the boxes without a better overlapping box of their class."""
    sizes = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    limits = network.threshold, network.model["nms"]
    return cv2.dnn.NMSBoxesBatched(sizes.tolist(), scores.tolist(), classes.tolist(), *limits)


def to_image(boxes, scale, image):
    """Rounds boxes to whole pixels of an image."""
    height, width = image.shape[:2]
    return np.clip(np.round(boxes / scale), 0, [width, height, width, height])


def region(edges, score, **fields):
    left, top, right, bottom = (int(edge) for edge in edges)
    box = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return {"box": box, "score": round(float(score), 4), **fields}


class Faces:
    """YuNet."""

    def __init__(self, models):
        self.network = Network(models / "yunet")
        self.strides = [(stride, cells(self.network, stride)) for stride in (8, 16, 32)]

    def find(self, image):
        fitted, scale = self.network.letterbox(image)
        outputs = self.network.run(fitted)
        boxes, scores, landmarks = [], [], []
        for stride, grid in self.strides:
            cls, obj, bbox, kps = (outputs[f"{part}_{stride}"][0] for part in ("cls", "obj", "bbox", "kps"))
            score = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
            sure = score >= self.network.threshold
            center = (grid[sure] + bbox[sure, :2]) * stride
            half = np.exp(bbox[sure, 2:]) * stride / 2
            boxes.append(np.hstack([center - half, center + half]))
            landmarks.append((np.tile(grid[sure], 5) + kps[sure]) * stride)
            scores.append(score[sure])
        boxes, scores = np.vstack(boxes), np.concatenate(scores)
        points = np.round(np.vstack(landmarks) / scale).astype(int)
        kept = surest(self.network, boxes, scores, np.zeros(len(scores), int))
        edges = to_image(boxes, scale, image)
        return [region(edges[i], scores[i], label="face", landmarks=marks(points[i])) for i in kept]


def marks(points):
    names = ("right-eye", "left-eye", "nose", "right-mouth", "left-mouth")
    return [{"name": name, "x": x, "y": y} for name, (x, y) in zip(names, points.reshape(5, 2).tolist())]


class Objects:
    """YOLOX."""

    def __init__(self, models):
        self.network = Network(models / "yolox-nano")
        self.labels = (models / "yolox-nano" / "labels.txt").read_text().splitlines()
        grids = [(cells(self.network, stride), stride) for stride in (8, 16, 32)]
        self.grid = np.concatenate([grid for grid, _ in grids])
        self.stride = np.concatenate([np.full((len(grid), 1), stride) for grid, stride in grids])

    def find(self, image):
        fitted, scale = self.network.letterbox(image)
        (rows,) = self.network.run(fitted).values()
        rows = rows[0]
        classes = rows[:, 5:].argmax(1)
        scores = rows[:, 4] * rows[np.arange(len(rows)), 5 + classes]
        sure = scores >= self.network.threshold
        rows, classes, scores, stride = rows[sure], classes[sure], scores[sure], self.stride[sure]
        center, half = (rows[:, :2] + self.grid[sure]) * stride, np.exp(rows[:, 2:4]) * stride / 2
        boxes = np.hstack([center - half, center + half])
        kept = surest(self.network, boxes, scores, classes)
        edges = to_image(boxes, scale, image)
        return [region(edges[i], scores[i], label=self.labels[classes[i]]) for i in kept]


class Text:
    """PP-OCR: finds lines and reads each with the small reader. Reads unsure lines with the large reader."""

    SURE = 0.95
    SHORTEST = 3  # side of a line in the output of the detector, in pixels

    def __init__(self, models):
        self.detector = Network(models / "ppocr-v6-tiny-det")
        self.readers = [Reader(models / "ppocr-v6-tiny-rec", self.SURE), Reader(models / "ppocr-v6-small-rec")]

    def find(self, image):
        regions = []
        for corners, score in self.lines(image):
            for reader in self.readers:
                text, sure = reader.read(self.crop(image, corners))
                if sure >= reader.threshold:
                    edges = np.concatenate([np.floor(corners.min(0)), np.ceil(corners.max(0))])
                    regions.append(region(edges, sure, label="text", text=text))
                    break
        return regions

    def lines(self, image):
        height, width = image.shape[:2]
        scale = min(self.detector.width / width, self.detector.height / height, 1)
        size = [max(round(side * scale / 32), 1) * 32 for side in (width, height)]
        (output,) = self.detector.run(cv2.resize(image, size)).values()
        likely = output[0, 0]
        found = self.detector.model["output"]
        contours, _ = cv2.findContours(
            (likely > found["pixel"]).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        for contour in contours:
            center, sides, angle = cv2.minAreaRect(contour)
            if min(sides) < self.SHORTEST:
                continue
            points = cv2.boxPoints((center, sides, angle))
            x, y, w, h = cv2.boundingRect(points)
            mask = np.zeros((h, w), np.uint8)
            cv2.fillConvexPoly(mask, (points - (x, y)).astype(np.int32), 1)
            x, y = max(x, 0), max(y, 0)
            inside = likely[y : y + h, x : x + w]
            score = cv2.mean(inside, mask[: inside.shape[0], : inside.shape[1]])[0]
            if score < self.detector.threshold:
                continue
            grown = found["unclip"] * sides[0] * sides[1] / (sides[0] + sides[1])
            points = cv2.boxPoints((center, (sides[0] + grown, sides[1] + grown), angle))
            yield upright(points) * (width / size[0], height / size[1]), score

    @staticmethod
    def crop(image, corners):
        """Returns the pixels between corners, turned upright."""
        width = max(round(float(np.linalg.norm(corners[1] - corners[0]))), 1)
        height = max(round(float(np.linalg.norm(corners[3] - corners[0]))), 1)
        level = abs(corners[0, 1] - corners[1, 1]) <= 1 and abs(corners[0, 0] - corners[3, 0]) <= 1
        if level:
            (left, top), (right, bottom) = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
            return image[max(top, 0) : bottom, max(left, 0) : right]
        turn = cv2.getAffineTransform(
            corners[[0, 1, 3]].astype(np.float32), np.array([[0, 0], [width, 0], [0, height]], np.float32)
        )
        return cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def upright(points):
    """Orders the corners clockwise from the top left of a line. Its first side points to the right."""
    for _ in range(4):
        across, down = points[1] - points[0]
        if across > 0 and across >= abs(down):
            break
        points = np.roll(points, -1, 0)
    if np.linalg.norm(points[3] - points[0]) >= 1.5 * np.linalg.norm(points[1] - points[0]):
        points = np.roll(points, -1, 0)  # read from the top
    return points


class Reader:
    """Reads a line of text."""

    def __init__(self, folder, threshold=None):
        self.network = Network(folder)
        self.threshold = threshold or self.network.threshold
        dictionary = (folder / self.network.model["dictionary"]).read_text()
        self.characters = ["", *dictionary.removesuffix("\n").split("\n"), " "]

    def read(self, crop):
        height = self.network.height
        width = min(max(round(crop.shape[1] * height / crop.shape[0]), 1), self.network.width)
        (output,) = self.network.run(cv2.resize(crop, (width, height))).values()
        best = output[0].argmax(1)
        new = (best != 0) & (best != np.concatenate([[0], best[:-1]]))
        if not new.any():
            return "", 0.0
        text = "".join(self.characters[i] for i in best[new])
        return text.strip(), float(output[0].max(1)[new].mean())


PIPELINES = {"faces": Faces, "objects": Objects, "text": Text}


class API(litserve.LitAPI):
    def __init__(self, pipeline, models):
        super().__init__(api_path="/v1/images")
        self.pipeline, self.models = pipeline, models

    def setup(self, device):
        cv2.setNumThreads(1)
        self.finder = PIPELINES[self.pipeline](self.models)
        self.finder.find(np.full((480, 640, 3), 255, np.uint8))  # warm up

    def decode_request(self, request: Annotated[bytes, Body(media_type="application/octet-stream")]):
        return cv2.imdecode(np.frombuffer(request, np.uint8), cv2.IMREAD_COLOR)

    def predict(self, image):
        return self.finder.find(image)

    def encode_response(self, regions):
        return {"pipeline": self.pipeline, "status": "done", "regions": regions}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--pipeline", choices=PIPELINES, required=True)
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    litserve.LitServer(
        API(arguments.pipeline, arguments.models), accelerator="cpu", workers_per_device=arguments.workers
    ).run(host="127.0.0.1", port=arguments.port, num_api_servers=1, generate_client_file=False, log_level="warning")
