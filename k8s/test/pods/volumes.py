"""Volumes of a pod as the kubelet makes them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 1e-3}


def quantity(text: str | int | float) -> float:
    """A Kubernetes quantity, such as `64Mi` or `500m`."""
    found = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text))
    if not found or found[2] not in UNITS:
        raise ValueError(f"{text!r} is no quantity")
    return float(found[1]) * UNITS[found[2]]


@dataclass
class Node:
    """What pods of one node share: directories of the host, and claims by name."""

    root: Path
    claims: dict[str, Path] = field(default_factory=dict)

    def path(self, host_path: str) -> Path:
        """A directory of the node, below the test's own root."""
        return self.root / host_path.lstrip("/")


@dataclass
class Volumes:
    """The volumes of one pod, by name: what podman mounts."""

    directory: Path
    sources: dict[str, str] = field(default_factory=dict)
    mounted: list[Path] = field(default_factory=list)

    def make(self, spec: dict[str, Any], config_maps: dict[str, dict[str, str]], node: Node) -> None:
        """Makes all volumes of a pod."""
        context = spec.get("securityContext") or {}
        for volume in spec.get("volumes") or []:
            path = self.directory / volume["name"]
            match volume:
                case {"emptyDir": source}:
                    path.mkdir()
                    self._empty_dir(path, source or {}, spec, context.get("fsGroup"))
                case {"configMap": source}:
                    path.mkdir()
                    for name, text in config_maps[source["name"]].items():
                        (path / name).write_text(text)
                case {"hostPath": source}:
                    path = node.path(source["path"])
                    if source.get("type") == "DirectoryOrCreate":
                        path.mkdir(mode=0o755, parents=True, exist_ok=True)
                    elif not path.is_dir():
                        raise FileNotFoundError(f"hostPath {source['path']}: there is no such directory on the node")
                case {"persistentVolumeClaim": source}:
                    path = node.claims[source["claimName"]]
                case {"image": source}:
                    self.sources[volume["name"]] = f"type=image,source={source['reference']}"
                    continue
                case _:
                    raise NotImplementedError(f"a volume of this kind: {volume}")
            self.sources[volume["name"]] = f"type=bind,source={path}"

    def _empty_dir(self, path: Path, source: dict[str, Any], spec: dict[str, Any], group: int | None) -> None:
        if source.get("medium") == "Memory":
            containers = spec["containers"] + (spec.get("initContainers") or [])
            limits = [((c.get("resources") or {}).get("limits") or {}).get("memory", 0) for c in containers]
            of_pod = sum(map(quantity, limits)) if all(limits) else 0
            sizes = [size for size in (quantity(source.get("sizeLimit", 0)), of_pod) if size]
            size = f"size={int(min(sizes))}" if sizes else "size=50%"
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"{size},nosuid,nodev", "tmpfs", str(path)], check=True)
            self.mounted.append(path)
        path.chmod(0o777)
        if group is not None:
            os.chown(path, -1, group)
            path.chmod(0o2777)

    def mount(self, volume_mount: dict[str, Any]) -> str:
        """The value of podman's `--mount` for a `volumeMounts` entry."""
        source = self.sources[volume_mount["name"]]
        read_only = ",ro=true" if volume_mount.get("readOnly") and source.startswith("type=bind") else ""
        return f"{source},destination={volume_mount['mountPath']}{read_only}"

    def remove(self) -> None:
        """Unmounts and removes everything that was made."""
        for path in reversed(self.mounted):
            subprocess.run(["umount", "--lazy", str(path)], check=False)
        self.mounted.clear()
        shutil.rmtree(self.directory, ignore_errors=True)
