"""Tensors of other libraries by DLPack: numpy, tvm_ffi, and torch where it is installed."""

from __future__ import annotations

import ctypes
import gc

import adjoin
import ml_dtypes
import numpy as np
import pytest
import tvm_ffi

ONES = np.ones((1, 4), np.float32)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def run(client: adjoin.Client, a: float, rows: int = 1) -> tuple[adjoin.Request, np.ndarray]:
    request = client.model("add").request(batch=rows)
    request["a"][:], request["b"][:] = a, 1
    with request.infer() as result:
        return request, result["sum"]


def test_numpy_sees_a_read_only_array_and_shares_the_pages(client: adjoin.Client) -> None:
    _, output = run(client, 2, rows=3000)
    view = np.from_dlpack(output)
    assert (view == 3).all() and view.shape == (3000, 4)
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
        assert not view.flags.writeable
    # Pages that are mapped and not copied are no memory of this process.
    start = address(view)
    with open("/proc/self/smaps") as maps:
        text = maps.read()
    mapping = next(
        part for part in text.split("VmFlags") if "adjoin-response" in part and is_in(part, start)
    )
    assert "Private_Dirty:         0 kB" in mapping
    assert "Anonymous:             0 kB" in mapping


def is_in(part: str, address: int) -> bool:
    for line in part.splitlines():
        words = line.split()
        if words and "-" in words[0] and len(words) > 4:
            start, end = (int(word, 16) for word in words[0].split("-"))
            return start <= address < end
    return False


def test_writing_through_an_export_is_private(client: adjoin.Client) -> None:
    request, output = run(client, 2)
    # What a library does that knows no read-only memory.
    exported = np.from_dlpack(Early(output))
    ctypes.memset(address(exported), 0, exported.nbytes)
    assert (exported == 0).all() and (output == 3).all()
    request["a"][:] = 5
    with request.infer() as result:
        assert (result["sum"] == 6).all()
    assert (exported == 0).all() and (output == 3).all()


class Early:
    """An array as libraries see it that ask for no version."""

    def __init__(self, array: object) -> None:
        self.array = array

    def __dlpack__(self, **kwargs: object) -> object:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_export_keeps_its_place(client: adjoin.Client) -> None:
    request, output = run(client, 2)
    tensors = [tvm_ffi.from_dlpack(output), tvm_ffi.from_dlpack(output[:, 1:])]
    del output
    gc.collect()
    for value in range(10):
        request["a"][:] = value
        request.infer().release()
    assert np.from_dlpack(tensors[0]).tolist() == [[3.0] * 4]
    assert np.from_dlpack(tensors[1]).tolist() == [[3.0] * 3]
    capsule = run(client, 7)[1].__dlpack__(max_version=(1, 0))
    del capsule  # never taken over


def test_parts_and_turned_arrays_are_exported_with_their_strides(client: adjoin.Client) -> None:
    request = client.model("add").request(batch=3)
    request["a"] = np.arange(12, dtype=np.float32).reshape(3, 4)
    request["b"][:] = 0
    output = request.infer()["sum"]
    for part in (output.T, output[1:], output[:, ::2], output[::-1], output[1]):
        assert (np.from_dlpack(part) == np.array(part)).all()
    with pytest.raises(BufferError, match="elements"):
        output.view(np.uint8).__dlpack__()
    assert (np.from_dlpack(output * 2) == output * 2).all()


def test_what_an_export_refuses(client: adjoin.Client) -> None:
    _, output = run(client, 2)
    with pytest.raises(ValueError, match="stream"):
        output.__dlpack__(stream=1)
    with pytest.raises(BufferError, match="device"):
        output.__dlpack__(dl_device=(2, 0))
    copied = np.from_dlpack(Early(Copied(output)))
    assert (copied == 3).all()


class Copied(Early):
    def __dlpack__(self, **kwargs: object) -> object:
        return self.array.__dlpack__(copy=True)


def test_inputs_are_shared(client: adjoin.Client) -> None:
    request = client.model("add").request()
    tensor = np.from_dlpack(request["a"])
    assert address(tensor) == address(request["a"])
    request["a"][:] = 4
    assert (tensor == 4).all()
    request["b"][:] = 1
    assert (request.infer()["sum"] == 5).all()


def test_tensors_of_others_are_inputs(client: adjoin.Client) -> None:
    model = client.model("add")
    a = tvm_ffi.from_dlpack(np.arange(8, dtype=np.float32).reshape(2, 4))
    b = Early(np.ones((4, 2), np.float32).T)
    assert (model(a=a, b=b)["sum"] == np.arange(1, 9).reshape(2, 4)).all()
    request = model.request(batch=2)
    request["a"] = a
    request["b"][:] = 1
    assert (request.infer()["sum"] == np.arange(1, 9).reshape(2, 4)).all()
    with pytest.raises(adjoin.DataTypeMismatch, match="float64.*float32"):
        model(a=Early(np.ones((1, 4))), b=ONES)
    with pytest.raises(adjoin.DataTypeMismatch, match="DLPack type 5 with 64 bits"):
        model(a=Early(np.ones((1, 4), np.complex64)), b=ONES)


def test_bfloat16_in_and_out(client: adjoin.Client) -> None:
    x = np.linspace(-2, 2, 8).reshape(1, 8).astype(ml_dtypes.bfloat16)
    request = client.model("bf16").request()
    request["x"] = x
    output = request.infer()["y"]
    assert (output == x + x).all()
    tensor = tvm_ffi.from_dlpack(output)
    assert str(tensor.dtype) == "bfloat16"
    # What numpy itself neither exports nor imports.
    assert (client.model("bf16")(x=tensor)["y"] == output + output).all()


class OnAnotherDevice(Early):
    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


def test_tensor_on_another_device_is_refused(client: adjoin.Client) -> None:
    with pytest.raises(adjoin.InvalidRequest, match="device 2; copy it to the CPU"):
        client.model("add")(a=OnAnotherDevice(ONES), b=ONES)


def test_torch_shares_outputs(client: adjoin.Client) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    request, output = run(client, 2)
    tensor = torch.from_dlpack(output)
    assert tensor.tolist() == [[3.0] * 4]
    tensor.add_(10)
    assert tensor.tolist() == [[13.0] * 4] and (output == 3).all()
    y = client.model("add")(a=torch.ones(1, 4), b=torch.ones(1, 4))
    assert (y["sum"] == 2).all()
    x = torch.linspace(-2, 2, 8).reshape(1, 8).to(torch.bfloat16)
    doubled = client.model("bf16").request()
    doubled["x"] = x
    assert torch.equal(torch.from_dlpack(doubled.infer()["y"]), x + x)
    torch.from_dlpack(request["a"]).fill_(7)
    assert (request.infer()["sum"] == 8).all()
