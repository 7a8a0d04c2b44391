"""The arrays over outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from adjoin._adjoin import export_dlpack

if TYPE_CHECKING:
    _Array = np.ndarray[Any, np.dtype[Any]]
else:
    _Array = np.ndarray


class OutputArray(_Array):
    """A read-only array over an output, where the server wrote it.

    Exports itself by DLPack without a copy, also to libraries that know no read-only memory: what
    they write stays in a private copy of the page. What is computed from it is a `numpy.ndarray`.
    """

    __slots__ = ()

    def __array_wrap__(
        self, array: _Array, context: Any = None, return_scalar: bool = False
    ) -> Any:
        # numpy 1 does not say which arrays are to be scalars.
        return array[()] if return_scalar or array.ndim == 0 else array.view(np.ndarray)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if stream is not None:
            raise ValueError(f"stream is {stream!r}; an array on the CPU has none")
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"the array is on device {self.__dlpack_device__()}, not {dl_device}")
        is_versioned = max_version is not None and max_version[0] >= 1
        exported = None if copy else export_dlpack(self, is_versioned)
        return np.array(self).__dlpack__() if exported is None else exported

    def __dlpack_device__(self) -> tuple[Literal[1], Literal[0]]:
        return (1, 0)

    def __reduce__(self) -> Any:
        return np.array(self).__reduce__()
