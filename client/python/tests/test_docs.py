"""Documents say what is so."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import adjoin
import numpy as np
from conftest import ROOT, Server

PACKAGE = ROOT / "client/python"


def test_reference_is_what_the_docstrings_say() -> None:
    subprocess.run([sys.executable, str(PACKAGE / "reference.py"), "--check"], check=True)


def test_everything_public_is_documented() -> None:
    undocumented = [
        f"{name}.{member}"
        for name in adjoin.__all__
        if isinstance(kind := getattr(adjoin, name), type)
        for member, value in vars(kind).items()
        if not member.startswith("_") and not (value.__doc__ or isinstance(value, str))
    ]
    assert not undocumented
    assert adjoin.connect.__doc__ and adjoin.__doc__


def test_code_of_the_readme_runs(shared_server: Server, digits, monkeypatch) -> None:
    images, _ = digits
    text = Path(PACKAGE / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 5
    monkeypatch.setenv("ADJOIN_SOCKET_DIR", shared_server.socket_dir)
    names: dict[str, object] = {"images": images[:4], "np": np, "__name__": "readme"}
    for block in blocks:
        code = block.replace('"/run/adjoin"', repr(shared_server.socket_dir))
        exec(compile(code, "README.md", "exec"), names)


def test_code_of_the_front_page_runs(shared_server: Server, monkeypatch) -> None:
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## From Python") : text.index("## From Rust")]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    code = block.replace('"/tmp/adjoin"', repr(shared_server.socket_dir))
    exec(
        compile(code + "\nimport asyncio\nlater = asyncio.run(classify())", "README.md", "exec"),
        names,
    )
    later, now = names["later"], names["y"]
    assert later["scores"].shape == (4, 10) and (later["scores"] == now["scores"]).all()


def test_docstring_of_the_package_runs(shared_server: Server, digits) -> None:
    images, _ = digits
    source = (adjoin.__doc__ or "").replace("/run/adjoin", shared_server.socket_dir)
    example = doctest.DocTestParser().get_doctest(source, {"images": images[:4]}, "adjoin", None, 0)
    printed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for step in example.examples:
        step.want = "[6 0 2 9]\n" if "print" in step.source else ""
    outcome = runner.run(example, out=printed.append)
    assert outcome.failed == 0 and outcome.attempted >= 2, "".join(printed)
