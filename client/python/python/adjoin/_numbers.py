"""Arrays of lists and numbers, which have no data type of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from adjoin.errors import DataTypeMismatch


def from_numbers(name: str, value: Any, dtype: np.dtype[Any], expected: str) -> Any:
    """An array of that type, unless the type cannot hold what was given.

    Integers and truth values stay exactly what they are. Numbers for a type of floating point are
    rounded to it, and are refused where nothing but infinity is left of them.
    """
    array = _integers(value, dtype) if dtype.kind in "biu" else _floats(value, dtype)
    if array is not None:
        return array
    given = np.asarray(value)
    examples = np.array2string(given.ravel(), threshold=4, edgeitems=2)
    raise DataTypeMismatch(
        f'input "{name}" has values of data type {given.dtype}, {examples}, that cannot all be '
        f"kept in {expected}, which the model takes: convert them yourself"
    )


def _integers(value: Any, dtype: np.dtype[Any]) -> Any:
    exact = np.asarray(value, object)
    try:
        array = np.asarray(value, dtype)
    except (OverflowError, TypeError, ValueError):
        return None
    is_kept = array.shape == exact.shape and bool((array.astype(object) == exact).all())
    return array if is_kept else None


def _floats(value: Any, dtype: np.dtype[Any]) -> Any:
    given = np.asarray(value)
    if given.dtype == dtype:
        return given
    if given.dtype.kind not in "biuf":
        return None
    with np.errstate(over="ignore"):
        array = given.astype(dtype)
    is_kept = bool((np.isinf(array) <= np.isinf(given)).all())
    return array if is_kept else None
