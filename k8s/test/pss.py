#!/usr/bin/env python3
"""Which level of the Pod Security Standards a pod meets: restricted, baseline or privileged.

The rules are those that Pod Security Admission enforces for Linux pods at "latest" (Kubernetes 1.37). Pods are taken from
Pods and from the templates of whatever has one. Where a newer standard relaxes a rule for pods in their own user
namespace, the stricter rule is applied.

    pss.py --level restricted FILE...      exits with 1 and a line for each violation; - reads standard input
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LEVELS = ("privileged", "baseline", "restricted")

BASELINE_CAPABILITIES = frozenset(
    "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID "
    "SYS_CHROOT".split()
)
SELINUX_TYPES = frozenset(["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
SAFE_SYSCTLS = frozenset(
    "kernel.shm_rmid_forced net.ipv4.ip_local_port_range net.ipv4.ip_unprivileged_port_start net.ipv4.tcp_syncookies "
    "net.ipv4.ping_group_range net.ipv4.ip_local_reserved_ports net.ipv4.tcp_keepalive_time net.ipv4.tcp_fin_timeout "
    "net.ipv4.tcp_keepalive_intvl net.ipv4.tcp_keepalive_probes net.ipv4.tcp_rmem net.ipv4.tcp_wmem".split()
)
# "image" is among them since the standard of 1.33.
RESTRICTED_VOLUMES = frozenset(
    "configMap csi downwardAPI emptyDir ephemeral image persistentVolumeClaim projected secret".split()
)
APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"


@dataclass(frozen=True)
class Violation:
    """A rule that a pod breaks."""

    level: str
    """The lowest level whose rule it is."""
    place: str
    """Where in the pod, such as `containers[app].securityContext`."""
    text: str

    def __str__(self) -> str:
        return f"{self.level}: {self.place}: {self.text}"


@dataclass(frozen=True)
class PodTemplate:
    """A pod, or what a controller makes pods from."""

    name: str
    """Such as `Deployment/app`."""
    spec: dict[str, Any]
    annotations: dict[str, str]


def pod_templates(document: dict[str, Any] | None) -> Iterator[PodTemplate]:
    """The pods that an object describes; none for objects of other kinds."""
    if not document:
        return
    kind = document.get("kind", "")
    metadata = document.get("metadata") or {}
    name = f"{kind}/{metadata.get('name', '?')}"
    if kind.endswith("List") and "items" in document:
        for item in document["items"]:
            yield from pod_templates(item)
        return
    spec = document.get("spec") or {}
    if kind == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    if kind == "Pod":
        yield PodTemplate(name, spec, metadata.get("annotations") or {})
    elif "template" in spec:
        template = spec["template"]
        annotations = (template.get("metadata") or {}).get("annotations") or {}
        yield PodTemplate(name, template.get("spec") or {}, annotations)
    elif kind in ("ClusterServingRuntime", "ServingRuntime"):
        # KServe takes containers and volumes from here as they are.
        yield PodTemplate(name, spec, spec.get("annotations") or {})


def _containers(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or []:
            yield f"{field}[{container.get('name', '?')}]", container


def _security_contexts(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "securityContext", spec.get("securityContext") or {}
    for place, container in _containers(spec):
        yield f"{place}.securityContext", container.get("securityContext") or {}


def _handlers(container: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Probes and hooks that connect to somewhere."""
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield field, container.get(field) or {}
    for hook, handler in (container.get("lifecycle") or {}).items():
        if isinstance(handler, dict):
            yield f"lifecycle.{hook}", handler


def _baseline_pod(template: PodTemplate) -> Iterator[tuple[str, str]]:
    spec = template.spec
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field, "is true"
    for volume in spec.get("volumes") or []:
        if "hostPath" in volume:
            yield f"volumes[{volume.get('name')}]", "is a hostPath"
    for sysctl in (spec.get("securityContext") or {}).get("sysctls") or []:
        if sysctl.get("name") not in SAFE_SYSCTLS:
            yield "securityContext.sysctls", f"{sysctl.get('name')} is not safe"
    for key, value in template.annotations.items():
        is_allowed = value == "runtime/default" or value.startswith("localhost/")
        if key.startswith(APPARMOR_ANNOTATION) and not is_allowed:
            yield f"annotation {key}", f"is {value}"


def _baseline_context(context: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if context.get("privileged"):
        yield "privileged", "is true"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "windowsOptions.hostProcess", "is true"
    if context.get("procMount", "Default") != "Default":
        yield "procMount", f"is {context['procMount']}"
    added = (context.get("capabilities") or {}).get("add") or []
    for capability in sorted(set(added) - BASELINE_CAPABILITIES):
        yield "capabilities.add", f"{capability} is not in the default set"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in SELINUX_TYPES:
        yield "seLinuxOptions.type", f"is {selinux['type']}"
    for field in ("user", "role"):
        if selinux.get(field):
            yield f"seLinuxOptions.{field}", "is set"
    for field in ("seccompProfile", "appArmorProfile"):
        if (context.get(field) or {}).get("type") == "Unconfined":
            yield f"{field}.type", "is Unconfined"


def _baseline(template: PodTemplate) -> Iterator[tuple[str, str]]:
    yield from _baseline_pod(template)
    for place, context in _security_contexts(template.spec):
        for field, text in _baseline_context(context):
            yield f"{place}.{field}", text
    for place, container in _containers(template.spec):
        for port in container.get("ports") or []:
            if port.get("hostPort"):
                yield f"{place}.ports", f"hostPort is {port['hostPort']}"
        for handler_place, handler in _handlers(container):
            for action in ("httpGet", "tcpSocket"):
                if (handler.get(action) or {}).get("host"):
                    yield f"{place}.{handler_place}.{action}.host", "is set"


def _restricted(template: PodTemplate) -> Iterator[tuple[str, str]]:
    spec = template.spec
    for volume in spec.get("volumes") or []:
        for source in sorted(set(volume) - {"name"} - RESTRICTED_VOLUMES):
            yield f"volumes[{volume.get('name')}]", f"is of the type {source}"
    pod = spec.get("securityContext") or {}
    for place, context in _security_contexts(spec):
        if context.get("runAsUser") == 0:
            yield f"{place}.runAsUser", "is 0"
        if context.get("runAsNonRoot") is False:
            yield f"{place}.runAsNonRoot", "is false"
    for place, container in _containers(spec):
        context = container.get("securityContext") or {}
        place = f"{place}.securityContext"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{place}.allowPrivilegeEscalation", "is not false"
        if context.get("runAsNonRoot", pod.get("runAsNonRoot")) is None:
            yield f"{place}.runAsNonRoot", "is not true, nor is that of the pod"
        seccomp = context.get("seccompProfile") or pod.get("seccompProfile") or {}
        if seccomp.get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{place}.seccompProfile.type", "is neither RuntimeDefault nor Localhost, nor is that of the pod"
        capabilities = context.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or []):
            yield f"{place}.capabilities.drop", "lacks ALL"
        for capability in sorted(set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}):
            yield f"{place}.capabilities.add", f"{capability} is not allowed"


def violations(template: PodTemplate) -> list[Violation]:
    """Everything that keeps a pod from the restricted level."""
    rules = (("baseline", _baseline), ("restricted", _restricted))
    return [Violation(level, place, text) for level, rule in rules for place, text in rule(template)]


def level(template: PodTemplate) -> str:
    """The strictest level that a pod meets."""
    broken = {violation.level for violation in violations(template)}
    if "baseline" in broken:
        return "privileged"
    return "baseline" if "restricted" in broken else "restricted"


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks the pods of manifests against the Pod Security Standards.")
    parser.add_argument("--level", choices=LEVELS[1:], default="restricted")
    parser.add_argument("files", nargs="+", metavar="FILE")
    arguments = parser.parse_args()
    wanted = LEVELS[1 : LEVELS.index(arguments.level) + 1]
    pods, broken = 0, 0
    for file in arguments.files:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        for document in yaml.safe_load_all(text):
            for template in pod_templates(document):
                pods += 1
                for violation in violations(template):
                    if violation.level in wanted:
                        broken += 1
                        print(f"{file}: {template.name}: {violation}")
    if pods == 0:
        # A check of nothing is a mistake in the call.
        print("pss.py: no pod in what was given", file=sys.stderr)
        return 2
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
