"""Reads handwritten digits: the model of `make demo`, from Python.

Start a server over it, then run this:

    adjoin serve --model-repository MODELS --socket-dir /tmp/adjoin  # MODELS/digits/1/model.onnx
    python examples/python/digits.py --socket-dir /tmp/adjoin
"""

from __future__ import annotations

import argparse
from pathlib import Path

import adjoin
import numpy as np

DIGITS = Path(__file__).resolve().parents[2] / "demo/digits"
BATCH = 32
SHADES = " .:-=+*#%@"


def picture(image: np.ndarray) -> str:
    shades = np.clip(image / 16 * (len(SHADES) - 1), 0, len(SHADES) - 1).astype(int)
    return "\n".join("".join(SHADES[shade] * 2 for shade in row) for row in shades)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket-dir", help="default: ADJOIN_SOCKET_DIR, or /run/adjoin")
    options = parser.parse_args()
    images = np.load(DIGITS / "test_images.npy").reshape(-1, 1, 8, 8).astype(np.float32)
    labels = np.load(DIGITS / "test_labels.npy")

    with adjoin.connect(options.socket_dir) as client:
        model = client.model("digits")
        request = model.request(batch=BATCH)
        guesses: list[int] = []
        for first in range(0, len(images) - BATCH + 1, BATCH):
            request["image"][:] = images[first : first + BATCH]  # the only write
            with request.infer(timeout=5.0) as result:
                guesses.extend(result["scores"].argmax(1))  # read where the server wrote them

        # The short form, for what does not fill a batch.
        rest = images[len(guesses) :]
        if len(rest):
            guesses.extend(model(image=rest)["scores"].argmax(1))

    print(picture(images[0, 0]))
    print(f"that is a {guesses[0]}")
    right = int(np.sum(guesses == labels))
    print(f"{right} of {len(labels)} held-out digits read right ({right / len(labels):.1%})")


if __name__ == "__main__":
    main()
