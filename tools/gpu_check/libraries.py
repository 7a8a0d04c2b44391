"""Libraries of others that steps need: where they are on this machine, or why they are not there."""

import importlib.util
import re
import sysconfig
from pathlib import Path

CUDA_PROVIDER = "libonnxruntime_providers_cuda.so"


def of_nvidia() -> list[Path]:
    """Directories of the CUDA libraries that Python packages bring (cublas, cudnn and what they need)."""
    site = Path(sysconfig.get_paths()["purelib"])
    return sorted(path for path in site.glob("nvidia/*/lib") if path.is_dir())


def onnxruntime(bundles: list[Path]) -> Path | str:
    """ONNX Runtime's library in one of these directories or in a Python package, with the CUDA provider beside it."""
    package = importlib.util.find_spec("onnxruntime")
    places = [*bundles]
    if package and package.origin:
        places.append(Path(package.origin).parent / "capi")
    for place in places:
        found = sorted(place.glob("libonnxruntime.so*"))
        if found and (place / CUDA_PROVIDER).is_file():
            return found[-1]
    return (
        f"{CUDA_PROVIDER} is neither in a --bundle nor in a Python package onnxruntime-gpu; "
        "--pack makes a bundle in pieces of at most 60 MiB"
    )


def fake_tensorrt(programs: Path) -> Path | None:
    """The TensorRT for tests that was built last."""
    built = list(programs.glob("build/adjoin-fake-nvinfer-*/out/this/libnvinfer.so.*"))
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


def fake_plan(library: Path) -> str:
    """A plan for it: rows of 64 KiB that are doubled, and one added."""
    release = re.search(r"so\.(\d+)$", library.name)
    if release is None:
        raise FileNotFoundError(f"{library} has no release in its name")
    return "\n".join([
        "adjoin fake plan",
        f"tensorrt {release[1]}",
        "input x FP32 -1,16384",
        "output y FP32 -1,16384",
        "profile 0 x 1,16384 4,16384 32,16384",
        "affine x y 2 1",
        "",
    ])
