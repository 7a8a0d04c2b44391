"""The examples with real models do with them what they say."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Server
from PIL import Image, ImageDraw
from test_examples import EXAMPLES, run

sys.path.insert(0, str(EXAMPLES))
import notice_board
import real_models
import sentence_embedding


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server([], fill=real_models.fill)
    yield server
    server.stop()


def inside(corners: object) -> np.ndarray:
    mask = Image.new("1", notice_board.SIZE)
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in np.array(corners)], fill=1)
    return np.asarray(mask)


def test_text_detection(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "found.png"
    printed = run(
        "text_detection.py", f"--socket-dir={server.socket_dir}", f"--out={out}", "--json"
    )
    boxes = {box["text"]: inside(box["corners"]) for box in map(json.loads, printed.splitlines())}
    assert sorted(boxes) == sorted(line.text for line in notice_board.LINES)
    for line in notice_board.LINES:
        written, found = inside(line.corners()), boxes[line.text]
        assert (written & found).sum() > 0.9 * written.sum(), f"{line.text!r} sticks out of its box"
        assert (written & found).sum() > 0.5 * (written | found).sum(), (
            f"the box of {line.text!r} is too large"
        )

    width, height = notice_board.SIZE
    with Image.open(out) as picture:
        assert picture.size == (2 * width, height)
        shown = np.asarray(picture.convert("RGB"))[:, :width]
    assert (shown != np.asarray(notice_board.render())).any(axis=2).mean() > 0.005, "no boxes drawn"


def test_picture_without_text(server: Server, tmp_path: Path) -> None:
    Image.new("RGB", (100, 50), notice_board.BOARD).save(tmp_path / "blank.png")
    printed = run(
        "text_detection.py",
        f"--socket-dir={server.socket_dir}",
        f"--picture={tmp_path / 'blank.png'}",
        f"--out={tmp_path / 'found.png'}",
    )
    assert printed == ""
    assert (tmp_path / "found.png").exists()


def test_sentence_embedding(server: Server) -> None:
    printed = run("sentence_embedding.py", f"--socket-dir={server.socket_dir}", "--nearest=1")
    lines = [line.strip() for line in printed.splitlines()]
    nearest = {query: line.split(maxsplit=1)[1] for query, line in zip(lines[::2], lines[1::2])}
    assert nearest == {
        "Can I get my money back?": "I would like a refund for my last order.",
        "I forgot the code to log in.": "How do I reset my password?",
        "The program crashes at start.": "The app closes as soon as I open it.",
        "Does this dish contain almonds?": "Is the soup free of nuts?",
    }
    asked = run("sentence_embedding.py", f"--socket-dir={server.socket_dir}", "Trains on Sunday?")
    assert "airport" in asked.splitlines()[1]


def test_paraphrase_is_nearer_than_an_unrelated_sentence(server: Server) -> None:
    sentences = [
        "A man is playing a guitar.",
        "Someone plays the guitar.",
        "The stock market fell by two percent today, its worst day since March.",
    ]
    with server.client() as client:
        embed = sentence_embedding.Embedder(client.model("sentence_embedding"))
        together = embed(sentences)
        alone = np.concatenate([embed([sentence]) for sentence in sentences])
    nearness = together @ together.T
    assert nearness[0, 1] > 0.7
    assert nearness[0, 2] < 0.3
    np.testing.assert_allclose(together, alone, atol=1e-4, err_msg="padding changes the meaning")
