"""The chart: linted, wrong values refused by its schema with a word of what is wrong, right ones meaning what they say."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import manifests
import pytest
import yaml
from manifests import CHART, COMMAND, K8S, ToolFailed, charted

VALUES = {path.stem: path for path in manifests.values_files()}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_lint_finds_nothing(values: Path) -> None:
    manifests.run("helm", "lint", "--strict", CHART, "--values", values)


WRONG = [
    ('mode="cluster"', "mode"),
    ('imag={"repository":"x"}', "imag"),
    ('image.repository=""', "repository"),
    ('image.tag="a b"', "tag"),
    ('image.digest="sha256:12"', "digest"),
    ('image.pullPolicy="Sometimes"', "pullPolicy"),
    ('models.source="s3"', "source"),
    ('models={"source":"image","path":"/models","image":{"reference":""}}', "reference"),
    ('models.source="persistentVolumeClaim"', "claimName"),
    ('models.path="models"', "path"),
    ("server.uid=0", "uid"),
    ("server.socketGroup=0", "socketGroup"),
    ("server.grpcPort=80", "grpcPort"),
    ('server.metricsPort="8002"', "metricsPort"),
    ("server.httpPort=70000", "httpPort"),
    ('server.logFormat="xml"', "logFormat"),
    ('server.extraArgs=["drain"]', "extraArgs"),
    ('server.resources={"requests":{"memory":"1Gi"},"limits":null}', "limits"),
    ('server.resources.limits={"memory":"1 GB"}', "memory"),
    ('server.resources.limits={"cpu":"1","memory":null}', "memory"),
    ("server.startupSeconds=0", "startupSeconds"),
    ("terminationGracePeriodSeconds=0", "terminationGracePeriodSeconds"),
    ("podLabels.a=1", "podLabels"),
    ("sidecar.app.uid=0", "uid"),
    ('daemonset.hostPath="run/adjoin"', "hostPath"),
    ('daemonset.gpu={"resource":"gpu","count":1}', "gpu"),
    ('daemonset={"gpu":{"resource":"nvidia.com/gpu","count":1},"surge":true}', "surge"),
    ('monitoring.podMonitor.interval="15"', "interval"),
    ("monitoring.podMonitor.enabled=1", "enabled"),
    ('autoscaling.kind="vpa"', "kind"),
    ('autoscaling={"kind":"hpa","deployment":"a","minReplicas":5,"maxReplicas":2}', "maxReplicas"),
    ('autoscaling={"kind":"hpa"}', "autoscaling.deployment is empty"),
    ('autoscaling={"kind":"keda","deployment":"a","prometheusAddress":"prometheus:9090"}', "prometheusAddress"),
]


@pytest.mark.parametrize(("setting", "word"), WRONG, ids=[setting for setting, _ in WRONG])
def test_wrong_values_are_refused(setting: str, word: str, tmp_path: Path) -> None:
    none = tmp_path / "values.yaml"
    none.write_text("{}")
    with pytest.raises(ToolFailed) as failed:
        manifests.run("helm", "template", "r", CHART, "--values", none, "--set-json", setting)
    assert word in str(failed.value)


def test_a_node_is_not_scaled_and_has_no_app() -> None:
    for setting in ('autoscaling={"kind":"hpa","deployment":"a"}', 'sidecar.app.image="x:1"'):
        with pytest.raises(ToolFailed):
            charted(VALUES["daemonset"], setting)


def server(document: dict[str, Any]) -> dict[str, Any]:
    """The server's container of a workload."""
    spec = document["spec"]["template"]["spec"]
    every = spec.get("initContainers", []) + spec["containers"]
    (found,) = [container for container in every if container["name"] == "adjoin"]
    return found


def test_the_sidecar_is_native_and_comes_before_the_app() -> None:
    pod = charted(VALUES["sidecar"]).only("Deployment")["spec"]["template"]["spec"]
    assert pod["initContainers"][0]["name"] == "adjoin"
    assert pod["initContainers"][0]["restartPolicy"] == "Always"
    assert "startupProbe" in pod["initContainers"][0]
    socket = {"name": "adjoin-sockets", "mountPath": "/run/adjoin"}
    for container in (pod["initContainers"][0], pod["containers"][0]):
        assert socket in container["volumeMounts"]
    assert {"name": "adjoin-sockets", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}} in pod["volumes"]
    assert pod["securityContext"]["fsGroup"] == 20000


def test_the_server_says_where_it_listens_and_probes_ask_there() -> None:
    container = server(charted(VALUES["daemonset"], "server.grpcPort=9001", "server.metricsPort=9002").only("DaemonSet"))
    assert {"--grpc-addr=0.0.0.0:9001", "--metrics-addr=0.0.0.0:9002", "--http-addr=0.0.0.0:8000"} <= set(container["args"])
    assert [port["containerPort"] for port in container["ports"]] == [9001, 9002, 8000]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"]["port"] == 9001
    assert container["livenessProbe"]["grpc"]["service"] == "adjoin/live"


def test_a_node_hands_over_or_with_a_gpu_waits_for_the_old_server() -> None:
    def strategy(name: str) -> dict[str, int]:
        update = charted(VALUES[name]).only("DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]
        return {key: update[key] for key in ("maxSurge", "maxUnavailable")}

    assert strategy("daemonset") == {"maxSurge": 1, "maxUnavailable": 0}
    assert strategy("daemonset-gpu") == {"maxSurge": 0, "maxUnavailable": 1}
    gpu = server(charted(VALUES["daemonset-gpu"]).only("DaemonSet"))
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "--takeover" in gpu["args"]
    sidecar = server(charted(VALUES["sidecar"]).only("Deployment"))
    assert "--takeover" not in sidecar["args"]


def test_a_change_of_the_configuration_changes_the_pod() -> None:
    def annotations(*more: str) -> dict[str, str]:
        rendered = charted(VALUES["sidecar"], *more)
        return rendered.only("Deployment")["spec"]["template"]["metadata"]["annotations"]

    assert annotations()["example.com/team"] == "vision"
    before = annotations()["checksum/adjoin-config"]
    assert annotations('config="[server]\\nspin_us = 0\\n"')["checksum/adjoin-config"] != before
    rendered = charted(VALUES["sidecar"])
    (config,) = [d for d in rendered.of_kind("ConfigMap") if "adjoin.toml" in d["data"]]
    assert "max_queue_delay_us = 500" in config["data"]["adjoin.toml"]


def test_rules_and_dashboard_are_those_of_the_monitoring_folder() -> None:
    rendered = charted(VALUES["monitoring"])
    source = yaml.safe_load((K8S / "monitoring" / "prometheusrule.yaml").read_text(encoding="utf-8"))
    assert rendered.only("PrometheusRule")["spec"] == source["spec"]
    (board,) = [d for d in rendered.of_kind("ConfigMap") if "adjoin.json" in d["data"]]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    expected = (K8S / "monitoring" / "dashboard.json").read_text(encoding="utf-8")
    assert json.loads(board["data"]["adjoin.json"]) == json.loads(expected)


def test_a_release_scrapes_its_own_pods_or_all() -> None:
    for name, kind in (("sidecar", "Deployment"), ("daemonset", "DaemonSet")):
        rendered = charted(VALUES[name], "monitoring.podMonitor.enabled=true")
        wanted = rendered.only("PodMonitor")["spec"]["selector"]["matchLabels"]
        pod = rendered.only(kind)["spec"]["template"]
        assert wanted.items() <= pod["metadata"]["labels"].items()
        names = [port["name"] for port in server(rendered.only(kind))["ports"]]
        assert rendered.only("PodMonitor")["spec"]["podMetricsEndpoints"][0]["port"] in names
    everybody = charted(VALUES["monitoring"]).only("PodMonitor")["spec"]["selector"]
    assert everybody == {"matchExpressions": [{"key": "adjoin/server", "operator": "Exists"}]}


def effective(document: dict[str, Any]) -> dict[str, Any]:
    """What the server's container comes to, however it is written: flags and environment, contexts of pod and container."""
    pod = document["spec"]["template"]["spec"]
    container = server(document)
    variables = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
    flags = [argument for argument in container["args"] if argument.startswith("--")]
    flags += [
        f"--{name.removeprefix('ADJOIN_').lower().replace('_', '-')}={value}"
        for name, value in variables.items()
        if name.startswith("ADJOIN_")
    ]
    # What the chart says though it is the default.
    flags = sorted(set(flags) - {"--log=info"})
    context = {**pod.get("securityContext", {}), **container["securityContext"]}
    preserved = ("runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile", "allowPrivilegeEscalation")
    return {
        "flags": flags,
        "ports": {port["name"]: port["containerPort"] for port in container["ports"]},
        "probes": {probe: container[probe] for probe in ("readinessProbe", "livenessProbe")},
        "context": {key: context[key] for key in (*preserved, "readOnlyRootFilesystem", "capabilities")},
        "mounts": sorted(mount["mountPath"] for mount in container["volumeMounts"]),
        "hooks": sorted(container.get("lifecycle", {})),
        "label": document["spec"]["template"]["metadata"]["labels"]["adjoin/server"],
        "grace": pod.get("terminationGracePeriodSeconds"),
    }


def test_chart_and_kustomize_run_the_same_server() -> None:
    models = 'models={"source":"image","path":"/models","image":{"reference":"m:1"}}'
    default = 'config="[access]\\ntcp_rights = [\\"health\\", \\"inspect\\"]\\n"'
    node = charted(VALUES["daemonset"], models, default, "server.httpPort=null", "server.extraArgs=[]").only("DaemonSet")
    assert effective(node) == effective(manifests.kustomized(K8S / "base" / "node").only("DaemonSet"))
    sidecar = effective(charted(VALUES["sidecar"], models, default).only("Deployment"))
    kustomized = effective(manifests.kustomized(K8S / "overlays" / "demo-sidecar").only("Deployment"))
    # How long an app of theirs may take to end is not ours to say.
    assert {**sidecar, "grace": None} == {**kustomized, "grace": None}


def test_the_configuration_is_that_of_the_kustomize_files() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for folder in ("base/node", "components/sidecar"):
        assert tomllib.loads(values["config"]) == tomllib.loads((K8S / folder / "adjoin.toml").read_text(encoding="utf-8"))


def test_a_package_holds_files_and_no_links(tmp_path: Path) -> None:
    manifests.run("helm", "package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        members = {member.name: member for member in archive.getmembers()}
        for name in ("files/prometheusrule.yaml", "files/dashboard.json"):
            member = members[f"adjoin/{name}"]
            assert member.isfile() and member.size == (CHART / name).stat().st_size


def test_the_version_is_that_of_the_workspace() -> None:
    manifest = (K8S.parent / "Cargo.toml").read_text(encoding="utf-8")
    version = next(line.split('"')[1] for line in manifest.splitlines() if line.startswith("version"))
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_a_chart_that_takes_the_sidecar_has_it_whole() -> None:
    rendered = manifests.example()
    job = rendered.only("Job")
    direct = server(charted(VALUES["sidecar"]).only("Deployment"))
    assert server(job)["startupProbe"] == direct["startupProbe"]
    assert job["spec"]["template"]["metadata"]["labels"]["adjoin/server"] == "sidecar"
    assert rendered.only("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "app"
    assert rendered.of_kind("Deployment") == []


def test_configurations_in_values_are_what_the_server_takes() -> None:
    """Asks the command for each configuration that the chart ships or shows: one that is wrong ends it first."""
    configs = {
        d["data"]["adjoin.toml"]
        for path in VALUES.values()
        for d in charted(path).of_kind("ConfigMap")
        if "adjoin.toml" in d["data"]
    }
    assert len(configs) >= 2
    for text in configs:
        asked = subprocess.run(
            [COMMAND, "serve", "--model-repository", "/nonexistent", "--config", "/dev/stdin", "--socket-dir", "/proc/x"],
            input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        # What ends it is the directory.
        assert "configuration" not in asked.stderr and "/proc/x" in asked.stderr, asked.stderr
