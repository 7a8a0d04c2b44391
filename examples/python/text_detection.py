"""Finds and reads the text in a picture: two vision models, run in place.

    pip install --no-deps -r examples/python/requirements.txt
    python examples/python/real_models.py MODELS
    adjoin serve --model-repository MODELS --socket-dir /tmp/adjoin
    python examples/python/text_detection.py --socket-dir /tmp/adjoin --out found.png

The first model says for each pixel how likely it is text; the second one reads the lines that were
found, four in a batch.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import adjoin
import notice_board
import numpy as np
from contourpy import FillType, contour_generator
from notice_board import Line, turned
from PIL import Image, ImageDraw, ImageFont
from real_models import characters

PIXEL_THRESHOLD = 0.3
BOX_THRESHOLD = 0.5
GROWTH = 1.6
"""The model marks the core of a line; its box is larger by this times area / perimeter a side."""
STRIDE = 32
"""Sides of what the model sees must be multiples of this."""
SHORT_SIDE_MIN = 960
"""Pixels; smaller pictures are enlarged."""
LINE_HEIGHT = 48
LINE_WIDTH_MIN = 320
LINES_MAX = 4
"""Lines of a batch."""
REGION_BYTES = 256 << 20
"""For a picture as floats; and for the probabilities of 18710 characters at each step of a line."""
BRUSH = "#ff2d78"


@dataclass
class Box:
    """A line of text, turned by less than 45 degrees."""

    centre: np.ndarray
    extent: np.ndarray
    """Width and height in pixels."""
    angle: float
    """Degrees clockwise."""
    text: str = ""
    score: float = 0.0
    """Of the text: mean probability of its characters."""

    def corners(self) -> np.ndarray:
        """(4, 2), clockwise from where the text begins."""
        return turned(self.centre, self.extent, self.angle)


def write_normalized(pixels: Image.Image, place: np.ndarray) -> None:
    """Writes blue, green, red from -1 to 1 into a request's (3, height, width)."""
    np.multiply(np.asarray(pixels)[:, :, ::-1].transpose(2, 0, 1), 1 / 127.5, out=place)
    place -= 1


def detect(model: adjoin.Model, picture: Image.Image) -> list[Box]:
    """Boxes from the top down."""
    enlarged = max(1, SHORT_SIDE_MIN / min(picture.size))
    width, height = (math.ceil(side * enlarged / STRIDE) * STRIDE for side in picture.size)
    request = model.request(shapes={"x": (1, 3, height, width)})
    write_normalized(picture.resize((width, height)), request["x"][0])
    with request.infer(timeout=30.0) as result:
        boxes = find_boxes(result["fetch_name_0"][0, 0])
    scale = np.array(picture.size) / (width, height)
    for box in boxes:
        box.centre, box.extent = box.centre * scale, box.extent * scale
    return sorted(boxes, key=lambda box: box.centre[1])


def find_boxes(text_probability: np.ndarray) -> list[Box]:
    """Boxes around the regions of a (height, width) map that are likely text."""
    generator = contour_generator(z=text_probability, fill_type=FillType.OuterOffset)
    boxes = []
    for points, offsets in zip(*generator.filled(PIXEL_THRESHOLD, np.inf)):
        outline = points[: offsets[1]]
        if mean_inside(text_probability, outline) < BOX_THRESHOLD:
            continue
        box = smallest_box(outline)
        box.extent = box.extent + 2 * GROWTH * box.extent.prod() / (2 * box.extent.sum())
        boxes.append(box)
    return boxes


def mean_inside(values: np.ndarray, outline: np.ndarray) -> float:
    left, top = np.floor(outline.min(axis=0)).astype(int)
    right, bottom = np.ceil(outline.max(axis=0)).astype(int) + 1
    mask = Image.new("1", (right - left, bottom - top))
    ImageDraw.Draw(mask).polygon([tuple(point) for point in outline - (left, top)], fill=1)
    return float(values[top:bottom, left:right].mean(where=np.asarray(mask)))


def smallest_box(points: np.ndarray) -> Box:
    """The box of least area around (n, 2) points, to half a degree."""
    angles = np.arange(-45, 45, 0.5)
    cos, sin = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    axes = np.array([(cos, sin), (-sin, cos)])  # (axis, coordinate, angle)
    projected = np.einsum("pc,xca->xap", points, axes)
    low, high = projected.min(axis=2), projected.max(axis=2)
    best = int((high - low).prod(axis=0).argmin())
    centre = (low + high)[:, best] / 2 @ axes[:, :, best]
    return Box(centre, (high - low)[:, best], float(angles[best]))


def recognize(model: adjoin.Model, picture: Image.Image, boxes: list[Box]) -> None:
    """Fills in the boxes' texts."""
    alphabet = characters()
    # Lines of similar length together: they are padded to the longest of their batch.
    boxes = sorted(boxes, key=lambda box: box.extent[0] / box.extent[1])
    for first in range(0, len(boxes), LINES_MAX):
        batch = boxes[first : first + LINES_MAX]
        lines = [straightened(picture, box) for box in batch]
        width = max([LINE_WIDTH_MIN, *(line.width for line in lines)])
        request = model.request(shapes={"x": (len(lines), 3, LINE_HEIGHT, width)})
        request["x"][:] = 0
        for place, line in zip(request["x"], lines):
            write_normalized(line, place[:, :, : line.width])
        with request.infer(timeout=30.0) as result:
            probabilities = result["fetch_name_0"]  # (line, step, character)
            classes, scores = probabilities.argmax(2), probabilities.max(2)
        for box, steps, step_scores in zip(batch, classes, scores):
            # CTC: a character is over when another one, or blank (0), follows.
            kept = (steps != 0) & (steps != np.concatenate([[0], steps[:-1]]))
            box.text = "".join(alphabet[step] for step in steps[kept])
            box.score = float(step_scores[kept].mean()) if kept.any() else 0.0


def straightened(picture: Image.Image, box: Box) -> Image.Image:
    """The line in a box, level and LINE_HEIGHT pixels high."""
    width = max(1, round(LINE_HEIGHT * box.extent[0] / box.extent[1]))
    begin, end, below_end, below_begin = box.corners()
    quad = (*begin, *below_begin, *below_end, *end)
    return picture.transform(
        (width, LINE_HEIGHT), Image.Transform.QUAD, quad, Image.Resampling.BICUBIC
    )


def side_by_side(picture: Image.Image, boxes: list[Box]) -> Image.Image:
    """The picture with its boxes, and beside it what was read in them."""
    found, read = picture.copy(), Image.new("RGB", picture.size, "white")
    for box in boxes:
        corners = [tuple(corner) for corner in box.corners()]
        for half in (found, read):
            ImageDraw.Draw(half).line([*corners, corners[0]], BRUSH, width=3, joint="curve")
        # As large as fits into the box.
        length = ImageFont.load_default(100).getlength(box.text)
        size = min(0.95 * box.extent[1], 95 * box.extent[0] / max(1, length))
        notice_board.write(read, Line(box.text, size, tuple(box.centre), box.angle))
    both = Image.new("RGB", (2 * picture.width, picture.height))
    both.paste(found)
    both.paste(read, (picture.width, 0))
    return both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket-dir", help="default: ADJOIN_SOCKET_DIR, or /run/adjoin")
    parser.add_argument("--picture", type=Path, help="default: a notice board, drawn")
    parser.add_argument("--out", type=Path, help="PNG of the picture with its boxes and texts")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each box")
    options = parser.parse_args()
    picture = (
        Image.open(options.picture).convert("RGB") if options.picture else notice_board.render()
    )

    with adjoin.connect(
        options.socket_dir, request_bytes=REGION_BYTES, response_bytes=REGION_BYTES
    ) as client:
        boxes = detect(client.model("text_detection"), picture)
        recognize(client.model("text_recognition"), picture, boxes)

    for box in boxes:
        if options.json:
            corners = box.corners().round(1).tolist()
            print(json.dumps({"text": box.text, "score": box.score, "corners": corners}))
        else:
            print(f"{box.text}  ({box.score:.2f}, at {box.centre.round()}, {box.angle:+.1f} deg)")
    if options.out:
        side_by_side(picture, boxes).quantize(64).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
