"""PyTorch tensors over a model's inputs and outputs, without a copy.

pip install torch
adjoin serve --model-repository MODELS --socket-dir /tmp/adjoin      # MODELS/digits/1/model.onnx
python examples/python/dlpack_torch.py --socket-dir /tmp/adjoin
"""

from __future__ import annotations

import argparse
from pathlib import Path

import adjoin
import numpy as np
import torch

DIGITS = Path(__file__).resolve().parents[2] / "demo/digits"
BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--socket-dir", help="default: ADJOIN_SOCKET_DIR, or /run/adjoin")
    options = parser.parse_args()
    images = torch.from_dlpack(np.load(DIGITS / "test_images.npy")[:BATCH].astype(np.float32))

    with adjoin.connect(options.socket_dir) as client:
        request = client.model("digits").request(batch=BATCH)
        # torch writes into the request region.
        torch.from_dlpack(request["image"]).copy_(images.reshape(BATCH, 1, 8, 8))
        with request.infer() as result:
            scores = torch.from_dlpack(result["scores"])
            is_shared = scores.data_ptr() % 4096 == address(result["scores"]) % 4096
        # The tensor keeps its place after the block, and what is written to it stays with it.
        best, digits = scores.max(dim=1)
        scores.mul_(100)

    print("digits:", digits.tolist())
    print("scores:", [round(score, 3) for score in best.tolist()])
    print("shares the server's pages:", is_shared)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


if __name__ == "__main__":
    main()
