"""The picture that text_detection.py reads: a notice board with texts in many sizes and angles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

SIZE = (960, 640)
BOARD = "#2f4858"


@dataclass(frozen=True)
class Line:
    text: str
    size: float
    """Pixels of the font."""
    centre: tuple[float, float]
    angle: float
    """Degrees clockwise."""
    ink: str = "#1d1d1f"

    @property
    def font(self) -> ImageFont.FreeTypeFont:
        font = ImageFont.load_default(self.size)
        assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
        return font

    def corners(self) -> np.ndarray:
        """Of the inked pixels in the picture, (4, 2): clockwise from where the text begins."""
        left, top, right, bottom = self.font.getbbox(self.text)
        return turned(self.centre, (right - left, bottom - top), self.angle)


@dataclass(frozen=True)
class Paper:
    centre: tuple[int, int]
    extent: tuple[int, int]
    angle: float
    colour: str


PAPERS = [
    Paper((250, 285), (400, 170), -11, "#f4f1e8"),
    Paper((700, 275), (330, 180), 8, "#ffd75e"),
    Paper((250, 510), (410, 130), 5, "#cfe8ef"),
    Paper((715, 505), (300, 120), -24, "#f2a7a0"),
]
LINES = [
    Line("NORTH PIER", 84, (480, 85), 0, "#ffffff"),
    Line("Boats to the island", 38, (244, 255), -11),
    Line("every 40 minutes", 26, (256, 315), -11, "#5a5046"),
    Line("Wet paint!", 58, (700, 275), 8, "#a11d21"),
    Line("Lost: grey cat, blue collar", 27, (252, 488), 5),
    Line("answers to the name of Tensor", 22, (248, 530), 5, "#37515c"),
    Line("ADMIT ONE", 46, (715, 505), -24, "#5b1310"),
]


def turned(centre: ArrayLike, extent: ArrayLike, angle: float) -> np.ndarray:
    """Corners of a rectangle, (4, 2), turned by degrees clockwise."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    half = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * np.asarray(extent) / 2
    corners: np.ndarray = half @ np.array([(cos, sin), (-sin, cos)]) + centre
    return corners


def render() -> Image.Image:
    board = Image.new("RGB", SIZE, BOARD)
    draw = ImageDraw.Draw(board)
    for paper in PAPERS:
        corners = turned(paper.centre, paper.extent, paper.angle)
        draw.polygon([tuple(corner) for corner in corners + 5], fill="#21343f")
        draw.polygon([tuple(corner) for corner in corners], fill=paper.colour)
    for line in LINES:
        write(board, line)
    return board


def write(picture: Image.Image, line: Line) -> None:
    left, top, right, bottom = line.font.getbbox(line.text)
    begin = line.centre[0] - (left + right) / 2, line.centre[1] - (top + bottom) / 2
    mask = Image.new("L", picture.size)
    ImageDraw.Draw(mask).text(begin, line.text, fill=255, font=line.font)
    mask = mask.rotate(-line.angle, Image.Resampling.BICUBIC, center=line.centre)
    picture.paste(line.ink, mask=mask)
