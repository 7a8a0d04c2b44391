"""A web service whose workers share one model server.

Each worker process has a session of its own; the model is in memory once, and requests of all
workers meet in one batcher. Nothing blocks: a request is awaited on the worker's event loop.

    pip install fastapi uvicorn
    adjoin serve --model-repository MODELS --socket-dir /tmp/adjoin  # MODELS/digits/1/model.onnx
    ADJOIN_SOCKET_DIR=/tmp/adjoin python examples/python/web_service.py --workers 4
    curl localhost:8000/digit --json '{"image": [[0, 0, 5, ...], ...]}'
"""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import adjoin
import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

TIMEOUT = 2.0
"""Seconds for a model run."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # In the worker, after it was forked or spawned: a client belongs to one process.
    with adjoin.connect(name="web", reconnect_timeout=5.0) as client:
        app.state.model = client.model("digits")
        yield


app = FastAPI(title="digits", lifespan=lifespan)


class Picture(BaseModel):
    image: list[list[float]]
    """8 rows of 8 shades, 0 to 16."""


@app.post("/digit")
async def digit(picture: Picture, request: Request) -> dict[str, object]:
    image = np.array(picture.image, np.float32)
    if image.shape != (8, 8):
        raise HTTPException(422, f"the image is {image.shape}, not (8, 8)")
    model: adjoin.Model = request.app.state.model
    try:
        outputs = await model.infer_async(image=image[None, None], timeout=TIMEOUT)
    except adjoin.Error as error:
        # Overload and restarts pass; anything else is a fault of ours.
        raise HTTPException(503 if error.retryable else 500, str(error)) from error
    scores = outputs["scores"][0]
    return {"digit": int(scores.argmax()), "score": float(scores.max()), "worker": os.getpid()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    uvicorn.run(
        "web_service:app",
        app_dir=os.path.dirname(os.path.abspath(__file__)),
        host=options.host,
        port=options.port,
        workers=options.workers,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
