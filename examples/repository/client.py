"""Reads handwritten digits with Triton's client library; nothing in here knows adjoin.

See README.md beside this file for the server's command line.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import numpy as np

DIGITS = Path(__file__).resolve().parents[2] / "demo/digits"
PORTS = {"grpc": 8001, "http": 8000}
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", choices=PORTS, default="grpc")
    parser.add_argument("--url", help="default: 127.0.0.1, with 8001 for grpc and 8000 for http")
    options = parser.parse_args()
    triton = importlib.import_module(f"tritonclient.{options.protocol}")
    client = triton.InferenceServerClient(options.url or f"127.0.0.1:{PORTS[options.protocol]}")
    images = np.load(DIGITS / "test_images.npy").reshape(-1, 1, 8, 8).astype(np.float32)
    labels = np.load(DIGITS / "test_labels.npy")

    def infer(batch: np.ndarray, classes: int = 0) -> np.ndarray:
        tensor = triton.InferInput("image", list(batch.shape), "FP32")
        tensor.set_data_from_numpy(batch)
        wanted = triton.InferRequestedOutput("scores", class_count=classes)
        return client.infer("digits", [tensor], outputs=[wanted]).as_numpy("scores")

    batches = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
    guesses = np.concatenate([infer(batch) for batch in batches]).argmax(1)
    right = int(np.sum(guesses == labels))
    print(f"{right} of {len(labels)} held-out digits read right ({right / len(labels):.1%})")

    # The server looks the labels up: each entry is value:index:label.
    best = infer(images[:1], classes=3)[0]
    print("the first one, best guesses:", ", ".join(entry.decode() for entry in best))


if __name__ == "__main__":
    main()
