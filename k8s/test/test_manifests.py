"""Every manifest has the form that clusters of two versions take, and its pods the level of security that they promise."""

from __future__ import annotations

import copy

import jsonschema
import manifests
import pss
import pytest
from manifests import Document, Rendered

EVERYTHING = manifests.everything()

# What is not restricted, and why: the socket directory of a node is a hostPath, which takes "privileged". Everything else
# has to be restricted.
PRIVILEGED = {
    "DaemonSet/adjoin-node",
    "DaemonSet/release-adjoin",
    # A client of the node's server.
    "overlays/daemonset Deployment/digits",
}


@pytest.mark.parametrize("rendered", EVERYTHING, ids=[rendered.name for rendered in EVERYTHING])
@pytest.mark.parametrize("version", manifests.VERSIONS)
def test_the_form_is_what_clusters_take(rendered: Rendered, version: str) -> None:
    assert rendered.documents, "nothing was rendered"
    for document in rendered.documents:
        manifests.check(document, version)


@pytest.mark.parametrize("rendered", EVERYTHING, ids=[rendered.name for rendered in EVERYTHING])
def test_pods_are_restricted_unless_they_mount_the_directory_of_a_node(rendered: Rendered) -> None:
    for document in rendered.documents:
        for template in pss.pod_templates(document):
            found = pss.violations(template)
            is_exempt = {template.name, f"{rendered.name} {template.name}"} & PRIVILEGED
            if is_exempt and found:
                # Nothing but the hostPath, and the one container that gives the directory to the server.
                others = [
                    violation
                    for violation in found
                    if "hostPath" not in violation.text and "[socket-dir]" not in violation.place
                ]
                assert others == []
            else:
                assert found == []


def test_everything_that_there_is_was_rendered() -> None:
    names = {rendered.name for rendered in EVERYTHING}
    assert {"monitoring", "helm/example", "helm/values/daemonset.yaml"} <= names
    kinds = {document["kind"] for rendered in EVERYTHING for document in rendered.documents}
    assert {"Deployment", "DaemonSet", "Job", "PodMonitor", "PrometheusRule", "ScaledObject"} <= kinds


def broken(kind: str, change: str) -> Document:
    """The first rendered document of a kind with a field that does not exist, or is not of that type."""
    for rendered in EVERYTHING:
        for document in rendered.of_kind(kind):
            document = copy.deepcopy(document)
            at = document
            *path, last = change.split(".")
            for key in path:
                at = at[int(key)] if isinstance(at, list) else at[key]
            at[last] = "x"
            return document
    raise AssertionError(f"no {kind} was rendered")


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
