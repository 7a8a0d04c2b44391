"""What a program does with arrays on the device; tests/gpu/python.rs runs it beside a server.

There is no PyTorch here that would take the fake device for one, so the driver itself copies.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import adjoin
import numpy as np

driver = ctypes.CDLL("libcuda.so.1")


def address(array: Any) -> ctypes.c_uint64:
    interface = array.__cuda_array_interface__
    assert interface["version"] == 3 and interface["strides"] is None
    start, is_read_only = interface["data"]
    assert not is_read_only
    return ctypes.c_uint64(start)


def write(to: Any, values: np.ndarray) -> None:
    source = ctypes.c_void_p(values.ctypes.data)
    size = ctypes.c_size_t(values.nbytes)
    assert driver.cuMemcpyHtoDAsync_v2(address(to), source, size, None) == 0


def read(source: Any) -> np.ndarray:
    interface = source.__cuda_array_interface__
    values = np.empty(interface["shape"], np.dtype(interface["typestr"]))
    to = ctypes.c_void_p(values.ctypes.data)
    size = ctypes.c_size_t(values.nbytes)
    assert driver.cuMemcpyDtoHAsync_v2(to, address(source), size, None) == 0
    return values


def raises(kind: type[Exception], word: str, call: Any, *given: Any, **named: Any) -> None:
    try:
        call(*given, **named)
    except kind as error:
        assert word in str(error), error
        return
    raise AssertionError(f"no {kind.__name__}")


def main() -> None:
    with adjoin.connect(sys.argv[1], request_bytes=1 << 20, response_bytes=1 << 20) as client:
        region = client.device_region(1 << 20)
        assert region.nbytes == 2 << 20
        assert region.__cuda_array_interface__["shape"] == (2 << 20,)
        x = region.array(0, (2, 4), np.float32)
        y = region.array(1 << 20, (4, 4), "float32")
        assert (x.shape, x.dtype, x.nbytes, x.offset) == ((2, 4), np.float32, 32, 0)
        assert address(y).value - address(region).value == 1 << 20

        for offset, shape in ((4, (1, 4)), (2 << 20, (1, 4)), (0, (-1, 4)), (0, (1 << 62, 4))):
            raises(adjoin.InvalidRequest, "does not lie", region.array, offset, shape, np.float32)
        for dtype in ("O", ">f4", "U4", "complex64"):
            raises(adjoin.InvalidRequest, "can be of type", region.array, 0, (1,), dtype)

        model = client.model("affine")
        raises(adjoin.TensorNotFound, '"z"', model.request, on_device={"z": x})
        integers = region.array(0, (2, 4), np.int32)
        raises(adjoin.DataTypeMismatch, "int32", model.request, on_device={"x": integers})
        narrow = region.array(0, (2, 3), np.float32)
        raises(adjoin.ShapeMismatch, "x", model.request, on_device={"x": narrow})
        on_processor = client.model("add").request(2, on_device={"a": x})
        raises(adjoin.InvalidRequest, "does not run there", on_processor.infer)

        request = model.request(on_device={"x": x, "y": y})
        raises(adjoin.InvalidRequest, "lies on a device", request.__getitem__, "x")
        for turn in range(3):
            values = np.arange(8, dtype=np.float32).reshape(2, 4) + 100 * turn
            write(x, values)
            with request.infer() as result:
                raises(adjoin.InvalidRequest, "lies on a device", result.__getitem__, "y")
            # Two of the four rows that there is room for.
            assert (read(y)[:2] == 2 * values + 1).all()


if __name__ == "__main__":
    main()
