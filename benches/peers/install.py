"""Installs what a peer needs into an environment of its own, with pip, from pinned requirements."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .layout import Layout
from .problems import Problem, Unavailable, one_line

# How pip says that it never reached an index, as opposed to not finding a package there.
UNREACHABLE = re.compile(
    r"Failed to establish a new connection|Name or service not known|Network is unreachable"
    r"|Temporary failure in name resolution|Connection refused|ConnectTimeoutError|ProxyError"
    r"|Connection to \S+ timed out|Max retries exceeded"
)


def ensure(layout: Layout, name: str, requirements: Path) -> None:
    """Makes the environment unless it is there with exactly these requirements.

    Raises Unavailable where pip says that something cannot be installed, and Problem where no index
    is within reach: that would be the same for every other peer.
    """
    folder = layout.environment(name)
    stamp = folder / "installed"
    wanted = fingerprint(folder, requirements)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"installing {name} into {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    make_environment(folder)
    pip_install(folder / "bin" / "python", name, requirements)
    stamp.write_text(wanted)


def fingerprint(folder: Path, requirements: Path) -> str:
    """What makes an environment another one; its scripts name its own path, so one that was moved is of no use."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    return f"{sys.version_info.major}.{sys.version_info.minor} {folder.absolute()} {digest}\n"


def make_environment(folder: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "venv", folder], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        said = one_line(made.stderr or made.stdout)
        raise Problem(f"{sys.executable} cannot make an environment (Debian: python3-venv): {said}")


def pip_install(python: Path, name: str, requirements: Path) -> None:
    installed = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        + ["--retries", "1", "--requirement", str(requirements)],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode == 0:
        return
    if UNREACHABLE.search(installed.stderr):
        raise Problem(
            f"pip reaches no package index to install {name}; connect, point PIP_INDEX_URL to a "
            "mirror, or name peers that are installed with --peers"
        )
    raise Unavailable(f"pip cannot install it: {last_error(installed.stderr)}")


def add_wheel(python: Path, wheel: Path) -> str:
    """Installs a wheel without what it depends on; says why not if it cannot be."""
    if not wheel.is_file():
        raise Problem(f"there is no wheel at {wheel}")
    installed = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        + ["--no-deps", "--no-index", "--force-reinstall", str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode == 0:
        return ""
    return f"pip cannot install {wheel.name}: {last_error(installed.stderr)}"


def last_error(text: str) -> str:
    errors = [line for line in text.splitlines() if line.startswith("ERROR:")]
    return one_line((errors or text.splitlines() or ["pip said nothing"])[-1])


def pins(requirements: Path) -> dict[str, str]:
    """Versions that a requirements file pins, by package."""
    lines = (line.split("#")[0].strip() for line in requirements.read_text().splitlines())
    pairs = (line.split(";")[0].split("==") for line in lines if "==" in line)
    return {package.split("[")[0].strip(): version.strip() for package, version in pairs}
