"""The check of the Pod Security Standards finds each violation, one at a time."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pss
import pytest
import yaml

RESTRICTED: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [
            {
                "name": "side",
                "image": "i",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "containers": [
            {
                "name": "app",
                "image": "i",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
        "volumes": [{"name": "e", "emptyDir": {}}, {"name": "m", "image": {"reference": "r"}}, {"name": "n"}],
    },
}

APP = ("spec", "containers", 0)
SIDE = ("spec", "initContainers", 0)
CONTEXT = "securityContext"

CASES = [
    # path, value (None removes), level that is left, word of the message
    (("spec", "hostNetwork"), True, "privileged", "hostNetwork"),
    (("spec", "hostPID"), True, "privileged", "hostPID"),
    (("spec", "hostIPC"), True, "privileged", "hostIPC"),
    (("spec", "volumes", 0), {"name": "h", "hostPath": {"path": "/"}}, "privileged", "hostPath"),
    (("spec", "volumes", 0), {"name": "n", "nfs": {"server": "s", "path": "/"}}, "baseline", "nfs"),
    (("spec", CONTEXT, "sysctls"), [{"name": "kernel.shmmax", "value": "1"}], "privileged", "kernel.shmmax"),
    (("spec", CONTEXT, "seccompProfile"), {"type": "Unconfined"}, "privileged", "Unconfined"),
    (("spec", CONTEXT, "seccompProfile"), None, "baseline", "seccompProfile"),
    (("spec", CONTEXT, "runAsNonRoot"), None, "baseline", "runAsNonRoot"),
    (("spec", CONTEXT, "runAsNonRoot"), False, "baseline", "runAsNonRoot"),
    (("spec", CONTEXT, "runAsUser"), 0, "baseline", "runAsUser"),
    (("metadata", "annotations"), {pss.APPARMOR_ANNOTATION + "app": "unconfined"}, "privileged", "apparmor"),
    ((*APP, "ports"), [{"containerPort": 1, "hostPort": 1}], "privileged", "hostPort"),
    ((*APP, "livenessProbe"), {"httpGet": {"port": 1, "host": "h"}}, "privileged", "host"),
    ((*APP, "lifecycle"), {"preStop": {"tcpSocket": {"port": 1, "host": "h"}}}, "privileged", "preStop"),
    ((*APP, CONTEXT, "privileged"), True, "privileged", "privileged"),
    ((*APP, CONTEXT, "procMount"), "Unmasked", "privileged", "procMount"),
    ((*APP, CONTEXT, "capabilities", "add"), ["IPC_LOCK"], "privileged", "IPC_LOCK"),
    ((*APP, CONTEXT, "capabilities", "add"), ["CHOWN"], "baseline", "CHOWN"),
    ((*APP, CONTEXT, "capabilities", "drop"), ["NET_RAW"], "baseline", "lacks ALL"),
    ((*APP, CONTEXT, "seLinuxOptions"), {"type": "spc_t"}, "privileged", "spc_t"),
    ((*APP, CONTEXT, "seLinuxOptions"), {"user": "u"}, "privileged", "seLinuxOptions.user"),
    ((*APP, CONTEXT, "appArmorProfile"), {"type": "Unconfined"}, "privileged", "appArmorProfile"),
    ((*APP, CONTEXT, "windowsOptions"), {"hostProcess": True}, "privileged", "hostProcess"),
    ((*APP, CONTEXT, "allowPrivilegeEscalation"), None, "baseline", "allowPrivilegeEscalation"),
    ((*APP, CONTEXT, "runAsUser"), 0, "baseline", "containers[app].securityContext.runAsUser"),
    ((*APP, CONTEXT, "runAsNonRoot"), False, "baseline", "runAsNonRoot"),
    ((*SIDE, CONTEXT), None, "baseline", "initContainers[side]"),
]


def pod(path: tuple[Any, ...] = (), value: Any = None) -> dict[str, Any]:
    """The restricted pod with one change."""
    document = copy.deepcopy(RESTRICTED)
    if path:
        at: Any = document
        for key in path[:-1]:
            at = at[key]
        if value is None:
            del at[path[-1]]
        else:
            at[path[-1]] = value
    return document


def test_a_restricted_pod_has_no_violation() -> None:
    (template,) = pss.pod_templates(pod())
    assert pss.violations(template) == []
    assert pss.level(template) == "restricted"


@pytest.mark.parametrize(("path", "value", "level", "word"), CASES, ids=[f"{c[0][-1]}={c[1]}" for c in CASES])
def test_each_violation_is_found(path: tuple[Any, ...], value: Any, level: str, word: str) -> None:
    (template,) = pss.pod_templates(pod(path, value))
    found = pss.violations(template)
    assert pss.level(template) == level
    assert any(word in str(violation) for violation in found), found


def test_what_is_allowed_is_not_found() -> None:
    for path, value in [
        ((*APP, CONTEXT, "capabilities", "add"), ["NET_BIND_SERVICE"]),
        ((*APP, CONTEXT, "seccompProfile"), {"type": "Localhost", "localhostProfile": "p"}),
        (("spec", "volumes", 0), {"name": "c", "csi": {"driver": "d"}}),
        (("spec", CONTEXT, "sysctls"), [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]),
    ]:
        (template,) = pss.pod_templates(pod(path, value))
        assert pss.level(template) == "restricted", (path, value)


def test_templates_are_found_where_controllers_keep_them() -> None:
    spec = RESTRICTED["spec"]
    deployment = {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": spec}}}
    cron = {"kind": "CronJob", "metadata": {"name": "c"}, "spec": {"jobTemplate": deployment}}
    service = {"kind": "Service", "metadata": {"name": "s"}, "spec": {}}
    everything = {"kind": "List", "items": [deployment, cron, service, pod()]}
    assert [template.name for template in pss.pod_templates(everything)] == ["Deployment/d", "CronJob/c", "Pod/p"]


def test_the_command_fails_for_violations_and_for_nothing_to_check(tmp_path: Path) -> None:
    def run(document: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "m.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        command = [sys.executable, pss.__file__, *arguments, str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run(pod()).returncode == 0
    weak = run(pod((*SIDE, CONTEXT)))
    assert weak.returncode == 1 and "initContainers[side]" in weak.stdout
    assert run(pod((*SIDE, CONTEXT)), "--level", "baseline").returncode == 0
    nothing = run({"kind": "Service"})
    assert nothing.returncode == 2 and "no pod" in nothing.stderr
