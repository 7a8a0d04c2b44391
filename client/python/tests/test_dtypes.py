"""Every data type of a model as numpy's."""

from __future__ import annotations

import sys

import adjoin
import ml_dtypes
import numpy as np
import pytest
from conftest import Server, run_python


def test_integers_and_bytes(client: adjoin.Client) -> None:
    x = np.arange(32, dtype=np.uint8).reshape(2, 16)
    assert (client.model("scale_u8")(x=x)["y"] == x / 2).all()
    a = np.array([[-(2**31), 0, 5, 2**31 - 1]], np.int32)
    b = np.array([[1, -(2**62), 5, 7]], np.int64)
    y = client.model("ints")(a=a, b=b)["sum"]
    assert y.dtype == np.int64 and (y == a.astype(np.int64) + b).all()


def test_half_precision(client: adjoin.Client) -> None:
    x = np.linspace(-3, 3, 16, dtype=np.float16).reshape(2, 8)
    model = client.model("half")
    assert model.inputs[0].dtype == np.float16
    assert (model(x=x)["y"] == x + x).all()
    request = model.request(batch=2)
    request["x"][:] = x
    with request.infer() as result:
        assert result["y"].dtype == np.float16 and (result["y"] == x + x).all()


def test_bfloat16_is_that_of_ml_dtypes(client: adjoin.Client) -> None:
    x = np.linspace(-3, 3, 16).reshape(2, 8).astype(ml_dtypes.bfloat16)
    model = client.model("bf16")
    assert model.inputs[0].datatype == "BF16"
    assert model.inputs[0].dtype == ml_dtypes.bfloat16
    assert (model(x=x)["y"] == x + x).all()
    request = model.request(batch=2)
    request["x"][:] = x
    with request.infer() as result:
        assert result["y"].dtype == ml_dtypes.bfloat16 and (result["y"] == x + x).all()
    request["x"] = x
    with pytest.raises(adjoin.DataTypeMismatch, match="uint16.*bfloat16"):
        request["x"] = x.view(np.uint16)


def test_bfloat16_without_ml_dtypes_says_what_to_install(shared_server: Server) -> None:
    source = """
import sys
sys.modules["ml_dtypes"] = None
import adjoin
model = adjoin.connect(sys.argv[1]).model("bf16")
try:
    model.request()["x"]
except adjoin.DataTypeMismatch as error:
    print(error)
"""
    assert "pip install ml_dtypes" in run_python(source, shared_server.socket_dir)


def texts(*rows: list[object]) -> np.ndarray:
    return np.array(rows, object)


def test_strings_are_bytes_objects(client: adjoin.Client) -> None:
    model = client.model("text")
    assert model.inputs[0].dtype == object and model.inputs[0].datatype == "BYTES"
    a, b = texts(["", "eins"], [b"2\0", "drei"]), texts(["vier"], ["fünf"])
    wanted = [[b"", b"eins", b"vier"], [b"2\0", b"drei", "fünf".encode()]]
    both = model(a=a, b=b)["both"]
    assert both.dtype == object and both.shape == (2, 3) and both.tolist() == wanted
    assert model(a=a.tolist(), b=b.tolist())["both"].tolist() == wanted
    fixed = model(a=np.array([[b"xy", b"z"]]), b=np.array([["ä"]]))["both"]
    assert fixed.tolist() == [[b"xy", b"z", "ä".encode()]]
    futures = [model.submit(a=[[str(i)]], b=[["x" * i]]) for i in range(50)]
    outputs = [future.result()["both"].tolist() for future in futures]
    assert outputs == [[[str(i).encode(), b"x" * i]] for i in range(50)]


def test_strings_in_a_request_are_assigned(client: adjoin.Client) -> None:
    model = client.model("text")
    request = model.request(shapes={"a": (1, 2), "b": (1, 1)})
    assert request["a"].tolist() == [[b"", b""]]
    assert request.infer()["both"].tolist() == [[b"", b"", b""]]
    request["a"] = [["one", "two"]]
    request["b"] = texts([b"three"])
    with request.infer() as result:
        assert result["both"].tolist() == [[b"one", b"two", b"three"]]
    request["a"] = [["1", "2"]]
    assert request["a"].tolist() == [[b"1", b"2"]]
    assert request["b"].tolist() == [[b"three"]]
    assert request.infer()["both"].tolist() == [[b"1", b"2", b"three"]]
    with pytest.raises(adjoin.ShapeMismatch, match=r"\[1, 1\].*\[1, 2\]"):
        request["a"] = [["one"]]
    with pytest.raises(adjoin.DataTypeMismatch, match='"a".*element of type int'):
        request["a"] = [["one", 2]]


def test_numpy_of_another_byte_order_is_refused(client: adjoin.Client) -> None:
    order = ">" if sys.byteorder == "little" else "<"
    a = np.ones((1, 4), order + "i4")
    with pytest.raises(adjoin.DataTypeMismatch, match="int32"):
        client.model("ints")(a=a, b=np.ones((1, 4), np.int64))
