"""Libraries in pieces that are small enough to be carried to a machine one by one.

A bundle is a directory: `manifest.json`, and pieces of the compressed files. On the other side the pieces are put
together, compared with the manifest, and unpacked beside each other.
"""

import hashlib
import json
import lzma
from dataclasses import dataclass
from pathlib import Path

PIECE_BYTES = 60 << 20
MANIFEST = "manifest.json"


class BundleError(Exception):
    """A bundle is not whole."""


@dataclass(frozen=True)
class Packed:
    """A file of a bundle."""

    name: str
    byte_size: int
    sha256: str
    pieces: list[str]


def pack(files: dict[str, bytes], directory: Path, piece_bytes: int = PIECE_BYTES) -> list[Packed]:
    """Writes files into pieces of at most `piece_bytes` bytes each."""
    directory.mkdir(parents=True, exist_ok=True)
    packed = []
    for name, data in files.items():
        compressed = lzma.compress(data, preset=9)
        pieces = []
        for number, at in enumerate(range(0, len(compressed), piece_bytes)):
            piece = f"{name}.xz.{number:02}"
            (directory / piece).write_bytes(compressed[at : at + piece_bytes])
            pieces.append(piece)
        packed.append(Packed(name, len(data), hashlib.sha256(data).hexdigest(), pieces))
    manifest = [vars(file) for file in packed]
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return packed


def unpack(directory: Path, to: Path) -> list[Path]:
    """Puts the files of a bundle into `to`. What is there already and is the same is left."""
    manifest = directory / MANIFEST
    if not manifest.is_file():
        raise BundleError(f"{manifest} is not there")
    to.mkdir(parents=True, exist_ok=True)
    written = []
    for entry in json.loads(manifest.read_text()):
        file = Packed(**entry)
        if Path(file.name).name != file.name:
            raise BundleError(f"{file.name!r} is no file name")
        place = to / file.name
        if not place.is_file() or digest(place.read_bytes()) != file.sha256:
            place.write_bytes(whole(directory, file))
        written.append(place)
    return written


def whole(directory: Path, file: Packed) -> bytes:
    """The bytes of a file, from its pieces."""
    decompressor = lzma.LZMADecompressor()
    data = bytearray()
    for piece in file.pieces:
        try:
            data += decompressor.decompress((directory / piece).read_bytes())
        except FileNotFoundError as error:
            raise BundleError(f"{piece} of {file.name} is missing") from error
        except (lzma.LZMAError, EOFError) as error:
            raise BundleError(f"{piece} of {file.name} is damaged: {error}") from error
    if digest(bytes(data)) != file.sha256:
        raise BundleError(f"{file.name} is damaged: its sum is not that of the manifest")
    return bytes(data)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
