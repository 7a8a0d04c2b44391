"""Everything in k8s/ that a cluster could be given, rendered and checked without one.

What a manifest is checked against: the schemas of Kubernetes itself at two versions, unknown fields refused; for custom
resources the schemas beside this file, which know the fields that we use and no others.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

K8S = Path(__file__).resolve().parent.parent
TOOLS = Path(os.environ.get("ADJOIN_K8S_TOOLS", K8S.parent / "target" / "k8s"))
COMMAND = Path(os.environ.get("ADJOIN_COMMAND", K8S.parent / "target" / "debug" / "adjoin"))
CHART = K8S / "helm" / "adjoin"

# The oldest that is checked, and the newest whose schemas there are.
VERSIONS = ("1.33", "1.37")
# Kinds that are younger than the oldest, and since when they are.
SINCE = {
    ("resource.k8s.io/v1", "ResourceClaim"): "1.34",
    ("resource.k8s.io/v1", "ResourceClaimTemplate"): "1.34",
    ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy"): "1.36",
    ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicyBinding"): "1.36",
}

Document = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """What a kustomization or a chart with values comes to."""

    name: str
    """Such as `overlays/job` or `helm/values/daemonset.yaml`."""
    documents: tuple[Document, ...]

    def of_kind(self, kind: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] == kind]

    def only(self, kind: str) -> Document:
        (document,) = self.of_kind(kind)
        return document


class ToolFailed(Exception):
    """A tool ended with an error; the message is its own."""


def run(tool: str, *arguments: str | Path) -> str:
    """What a fetched tool prints."""
    path = TOOLS / "bin" / tool
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run k8s/test/fetch.sh {TOOLS}")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolFailed(done.stderr + done.stdout)
    return done.stdout


def documents(text: str) -> tuple[Document, ...]:
    return tuple(document for document in yaml.safe_load_all(text) if document)


def kustomizations() -> list[Path]:
    """All that can be applied by themselves: not components, and not what only patches others."""
    found = []
    for path in sorted(K8S.rglob("kustomization.yaml")):
        kind = yaml.safe_load(path.read_text(encoding="utf-8")).get("kind", "Kustomization")
        if kind == "Kustomization":
            found.append(path.parent)
    return found


@functools.cache
def kustomized(path: Path) -> Rendered:
    return Rendered(str(path.relative_to(K8S)), documents(run("kubectl", "kustomize", path)))


def values_files() -> list[Path]:
    return sorted((K8S / "helm" / "values").glob("*.yaml"))


@functools.cache
def charted(values: Path, *more: str) -> Rendered:
    """The chart with a file of values and `--set` arguments."""
    sets = [argument for setting in more for argument in ("--set-json", setting)]
    text = run("helm", "template", "release", CHART, "--namespace", "space", "--values", values, *sets)
    return Rendered(str(values.relative_to(K8S)), documents(text))


@functools.cache
def example() -> Rendered:
    """The chart that takes the sidecar from ours, as its user would build it."""
    with tempfile.TemporaryDirectory() as directory:
        # Building writes into the folder.
        helm = Path(directory) / "helm"
        shutil.copytree(K8S / "helm", helm, symlinks=False)
        run("helm", "dependency", "build", helm / "example")
        text = run("helm", "template", "release", helm / "example", "--namespace", "space")
    return Rendered("helm/example", documents(text))


def plain() -> Iterable[Rendered]:
    """Manifests that are applied as they are."""
    folders = ("monitoring", "kserve")
    # Values for a chart of others.
    not_manifests = {"kustomization.yaml", "rules_test.yaml", "prometheus-adapter.yaml"}
    for folder in folders:
        for path in sorted((K8S / folder).glob("*.yaml")):
            if path.name not in not_manifests:
                yield Rendered(str(path.relative_to(K8S)), documents(path.read_text(encoding="utf-8")))


def everything() -> list[Rendered]:
    rendered = [kustomized(path) for path in kustomizations()]
    rendered += [charted(path) for path in values_files()]
    return [*rendered, example(), *plain()]


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def check(document: Document, version: str) -> None:
    """Raises for whatever a cluster of that version would refuse of its form, or silently drop."""
    kind = (document["apiVersion"], document["kind"])
    own = Path(__file__).parent / "schemas" / f"{document['kind'].lower()}.json"
    if own.exists():
        schema = json.loads(own.read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(document)
        return
    if kind in SINCE and _number(version) < _number(SINCE[kind]):
        return
    kubernetes_validate.validate(document, version, strict=True)
