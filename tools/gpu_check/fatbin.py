"""Leaves the code for one GPU architecture in a library, and zeroes that for others.

NVIDIA's compilers put the code for every architecture into one section, as containers of entries. The entries
stay where they are, with their headers, so that the library is as long as before and the driver finds what it
looks for; zeros compress to nothing.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

SECTION = b".nv_fatbin"
CONTAINER_MAGIC = 0xBA55ED50
CONTAINER_HEADER = struct.Struct("<IHHQ")
ENTRY_HEADER = struct.Struct("<HHIQII")
ARCHITECTURE_AT = 28
MACHINE_CODE = 2


class NotAnElf(ValueError):
    """The file is no 64-bit ELF library."""


def sections(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, offset and size of each section of an ELF file."""
    if data[:5] != b"\x7fELF\x02":
        raise NotAnElf("it is no 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    (names_at,) = struct.unpack_from("<Q", data, table + names * entry_size + 0x18)
    for index in range(count):
        name, _, _, _, offset, size = struct.unpack_from(
            "<IIQQQQ", data, table + index * entry_size
        )
        start = names_at + name
        yield data[start : data.index(0, start)], offset, size


def entries(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Kind, architecture, offset and size of each piece of code."""
    for name, start, size in sections(data):
        if not name.startswith(SECTION):
            continue
        at, end = start, start + size
        while at + CONTAINER_HEADER.size <= end:
            magic, _, header, body = CONTAINER_HEADER.unpack_from(data, at)
            if magic != CONTAINER_MAGIC:
                at += 8
                continue
            entry, container_end = at + header, at + header + body
            while entry < container_end:
                kind, _, header, size, _, _ = ENTRY_HEADER.unpack_from(data, entry)
                (architecture,) = struct.unpack_from("<I", data, entry + ARCHITECTURE_AT)
                if header == 0:
                    break
                yield kind, architecture, entry + header, size
                entry += header + size
            at = container_end


def prune(library: Path, architecture: int) -> bytes:
    """The library with machine code for `architecture` alone."""
    data = bytearray(library.read_bytes())
    kept = 0
    for kind, of, at, size in list(entries(bytes(data))):
        if kind == MACHINE_CODE and of == architecture:
            kept += 1
        else:
            data[at : at + size] = bytes(size)
    if kept == 0:
        raise ValueError(f"{library.name} has no machine code for architecture {architecture}")
    return bytes(data)
