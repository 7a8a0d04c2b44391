"""A tensor as msgpack: `{"shape": [..], "data": bin}`. The data type is known on both sides."""

import msgpack
import numpy as np


def to_map(tensor: np.ndarray) -> dict:
    # A view: msgpack copies the bytes into the message, nothing does before.
    return {"shape": tensor.shape, "data": memoryview(np.ascontiguousarray(tensor)).cast("B")}


def from_map(value: dict, dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(value["data"], dtype).reshape(value["shape"])


def pack(tensor: np.ndarray) -> bytes:
    return msgpack.packb(to_map(tensor))


def unpack(body: bytes, dtype: np.dtype) -> np.ndarray:
    return from_map(msgpack.unpackb(body), dtype)
