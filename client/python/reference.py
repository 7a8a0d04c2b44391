"""Writes docs/python.md from the docstrings of the installed package and the types of its stubs.

With `--check` it writes nothing, and fails if the file is not what it would write.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from pathlib import Path

import adjoin
from adjoin import errors

HERE = Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "docs/python.md"
STUBS = HERE / "python/adjoin/_adjoin.pyi"

CLASSES = [
    "Client",
    "Model",
    "TensorSpec",
    "Request",
    "Result",
    "Stats",
    "Future",
    "OutputArray",
    "DeviceRegion",
    "DeviceArray",
]
SHOWN = {"__call__", "__getitem__", "__setitem__"}
HEADER = """# Python reference

Written by `client/python/reference.py` from the docstrings.
[client/python](../client/python/README.md) is where to begin;
[from tritonclient to adjoin](from-tritonclient.md) shows the one beside the other.
"""

Members = dict[str, ast.FunctionDef]


def stubs() -> tuple[dict[str, Members], Members]:
    """Functions of the classes, and of the module."""
    classes: dict[str, Members] = {}
    functions: Members = {}
    for node in ast.parse(STUBS.read_text()).body:
        if isinstance(node, ast.ClassDef):
            members = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            classes[node.name] = {item.name: item for item in members}
        elif isinstance(node, ast.FunctionDef):
            functions[node.name] = node
    return classes, functions


def signature(owner: str, function: ast.FunctionDef) -> str:
    """As it is called, with types."""
    returns = ast.unparse(function.returns) if function.returns else "None"
    returns = returns.replace("_Values", "dict[str, NDArray[Any]]")
    if is_property(function):
        return f"{owner}.{function.name}: {returns}"
    arguments = function.args
    positional = arguments.posonlyargs or arguments.args
    if positional and positional[0].arg == "self":
        positional.pop(0)
    if function.name == "__getitem__":
        return f"{owner}[name]: {returns}"
    if function.name == "__setitem__":
        return f"{owner}[name] = value"
    name = owner if function.name == "__call__" else f"{owner}.{function.name}".removeprefix(".")
    parts = split(ast.unparse(arguments))
    text = f"{name}({', '.join(parts)}) -> {returns}"
    if len(text) <= 100:
        return text
    inner = "".join(f"    {part},\n" for part in parts)
    return f"{name}(\n{inner}) -> {returns}"


def split(arguments: str) -> list[str]:
    """At commas outside of brackets."""
    parts, depth = [""], 0
    for char in arguments:
        depth += (char in "([") - (char in ")]")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def is_property(function: ast.FunctionDef) -> bool:
    names = [node.id for node in function.decorator_list if isinstance(node, ast.Name)]
    return "property" in names


def markdown(docstring: str | None) -> str:
    """A docstring with numpy's sections as Markdown."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    out: list[str] = []
    section = ""
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if set(following) == {"-"} and len(following) == len(line):
            section = line
            out += ["", f"**{section}**", ""]
        elif section and set(line) == {"-"}:
            continue
        elif section and line.startswith("    "):
            out.append(f"  {line.strip()}")
        elif section and line:
            name, _, kind = line.partition(" : ")
            is_named = bool(kind) and re.fullmatch(r"\*{0,2}\w+", name)
            out.append(f"- `{name}` ({kind}):" if is_named else f"- {line}")
        else:
            out.append(line)
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(out))
    return re.sub(r"``(.+?)``", r"`\1`", text).strip()


def of_class(name: str, members: Members) -> list[str]:
    kind = getattr(adjoin, name)
    owner = name.lower()
    out = [f"\n## {name}\n", markdown(kind.__doc__)]
    for member, function in members.items():
        if member.startswith("_") and member not in SHOWN:
            continue
        out.append(f"\n```python\n{signature(owner, function)}\n```\n")
        documented = getattr(kind, member)
        if not member.startswith("__"):
            out.append(markdown(documented.__doc__))
        elif member == "__call__":
            out.append("As `infer`.")
    return out


def of_errors() -> list[str]:
    out = [
        "\n## Errors\n",
        markdown(errors.__doc__),
        "\n| exception | is also | when |\n|---|---|---|",
    ]
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
            when = " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].split())
            out.append(f"| `{name}` | {bases} | {when} |")
    out.append("\nEvery exception has\n")
    source = ast.parse(inspect.getsource(errors.Error)).body[0]
    assert isinstance(source, ast.ClassDef)
    for before, after in zip(source.body, source.body[1:]):
        if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr):
            field, kind = ast.unparse(before.target), ast.unparse(before.annotation)
            text = " ".join(str(ast.literal_eval(after.value)).split())
            out.append(f"- `{field}` ({kind}): {markdown(text)}")
    return out


def reference() -> str:
    classes, functions = stubs()
    out = [HEADER, f"\n```python\n{signature('adjoin', functions['connect'])}\n```\n"]
    out.append(markdown(adjoin.connect.__doc__))
    for name in CLASSES:
        out += of_class(name, classes.get(name, {}))
    out += of_errors()
    return "\n".join(line.rstrip() for line in "\n".join(out).splitlines()) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; compare")
    text = reference()
    if not parser.parse_args().check:
        TARGET.write_text(text)
    elif TARGET.read_text() != text:
        sys.exit("docs/python.md is not what the docstrings say; run client/python/reference.py")


if __name__ == "__main__":
    main()
