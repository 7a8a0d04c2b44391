"""Every manifest has the form that clusters of two versions take, and its pods the level of security that they promise."""

from __future__ import annotations

import copy

import jsonschema
import manifests
import pss
import pytest
from manifests import Document, Rendered

EVERYTHING = manifests.everything()

# What is not restricted: whoever mounts the socket directory of a node, which is a hostPath. Nothing else about them may
# be, but for the init container that gives the directory to the server.
MOUNTS_A_NODES_DIRECTORY = {
    "DaemonSet/adjoin-node",
    "DaemonSet/release-adjoin",
    # A client of the node's server.
    "overlays/daemonset Deployment/digits",
}
# Node plugins of CSI mount things for others: they are privileged by nature.
PRIVILEGED = {"csi/manifests DaemonSet/adjoin-csi"}


@pytest.mark.parametrize("rendered", EVERYTHING, ids=[rendered.name for rendered in EVERYTHING])
@pytest.mark.parametrize("version", manifests.VERSIONS)
def test_the_form_is_what_clusters_take(rendered: Rendered, version: str) -> None:
    assert rendered.documents, "nothing was rendered"
    for document in rendered.documents:
        manifests.check(document, version)


@pytest.mark.parametrize("rendered", EVERYTHING, ids=[rendered.name for rendered in EVERYTHING])
def test_pods_are_restricted_but_for_those_that_are_known(rendered: Rendered) -> None:
    for document in rendered.documents:
        for template in pss.pod_templates(document):
            names = {template.name, f"{rendered.name} {template.name}"}
            found = pss.violations(template)
            if names & PRIVILEGED:
                continue
            if names & MOUNTS_A_NODES_DIRECTORY:
                found = [
                    violation
                    for violation in found
                    if "hostPath" not in violation.text and "[socket-dir]" not in violation.place
                ]
            assert found == []


def test_everything_that_there_is_was_rendered() -> None:
    names = {rendered.name for rendered in EVERYTHING}
    assert {"monitoring", "helm/example", "helm/values/daemonset.yaml"} <= names
    kinds = {document["kind"] for rendered in EVERYTHING for document in rendered.documents}
    assert {"Deployment", "DaemonSet", "Job", "PodMonitor", "PrometheusRule", "ScaledObject"} <= kinds


def broken(kind: str, change: str) -> Document:
    """A document of a kind with a field that does not exist, or is not of that type."""
    *path, last = change.split(".")
    for rendered in EVERYTHING:
        for document in rendered.of_kind(kind):
            document = copy.deepcopy(document)
            try:
                at = document
                for key in path:
                    at = at[int(key)] if isinstance(at, list) else at[key]
            except KeyError:
                continue
            at[last] = "x"
            return document
    raise AssertionError(f"no {kind} has {path}")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Deployment", "spec.template.spec.contaners"),
        ("Deployment", "spec.template.spec.initContainers.0.startupprobe"),
        ("DaemonSet", "spec.updateStrategy.rollingUpdate.maxsurge"),
        ("HorizontalPodAutoscaler", "spec.maxReplicas"),
        ("PodMonitor", "spec.podMetricEndpoints"),
        ("PrometheusRule", "spec.groups.0.rules.0.expression"),
        ("ScaledObject", "spec.triggers.0.metadata.treshold"),
    ],
)
def test_the_check_refuses_what_is_wrong(kind: str, change: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        manifests.check(broken(kind, change), manifests.VERSIONS[-1])
