"""What a kubelet and its runtime make of a container of the manifests, written down for an OCI runtime; without it the
image would be tried within other bounds than a cluster's."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import seccomp
from tests.test_deploy_on_lab import HIDDEN, READ_ONLY

# What containerd's CRI gives where a manifest says nothing, so that "drop" is seen to drop.
BY_DEFAULT = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
ARCHITECTURES = {"x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
OF_ITS_OWN = (
    ("/proc", "proc", "nosuid noexec nodev"),
    ("/dev", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/dev/shm", "tmpfs", "nosuid noexec nodev mode=1777 size=65536k"),
    ("/dev/mqueue", "mqueue", "nosuid noexec nodev"),
    ("/sys", "sysfs", "nosuid noexec nodev ro"),
    ("/sys/fs/cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
)
OF_THE_NODE = ("/etc/hosts", "/etc/resolv.conf")
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


@dataclass(frozen=True)
class Image:
    """root: all of its files. user: uid:gid. environment: NAME=VALUE each."""

    root: Path
    entrypoint: list[str]
    command: list[str]
    environment: list[str]
    user: str


@dataclass(frozen=True)
class Place:
    """Where a pod is. variables: KUBERNETES_SERVICE_*. secrets: what `envFrom` reads, by name. volumes: of each volume
    the node's directory. profile: one of tests/fixtures/seccomp."""

    node: str
    namespace: str
    variables: Mapping[str, str]
    secrets: Mapping[str, Mapping[str, str]]
    volumes: Mapping[str, Path]
    profile: str


def capabilities(container: Mapping[str, Any]) -> list[str]:
    told = container["securityContext"].get("capabilities", {})
    dropped = told.get("drop", [])
    kept = () if "ALL" in dropped else (one for one in BY_DEFAULT if one not in dropped)
    return sorted({*kept, *told.get("add", [])})


def ids(image: Image, pod: Mapping[str, Any], container: Mapping[str, Any]) -> tuple[int, int]:
    """User and group."""
    user, group = map(int, image.user.split(":"))
    told = {**pod["securityContext"], **container["securityContext"]}
    found = told.get("runAsUser", user), told.get("runAsGroup", group)
    assert found[0] or not told.get("runAsNonRoot"), "the kubelet does not start it"
    return found


def environment(image: Image, container: Mapping[str, Any], place: Place) -> dict[str, str]:
    fields = {"spec.nodeName": place.node, "metadata.namespace": place.namespace}
    found = dict(one.split("=", 1) for one in image.environment)
    found |= place.variables
    for one in container.get("envFrom", ()):
        found |= place.secrets[one["secretRef"]["name"]]
    for one in container.get("env", ()):
        found[one["name"]] = one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
    return found


def specification(
    image: Image, pod: Mapping[str, Any], container: Mapping[str, Any], place: Place, words: Sequence[str] = ()
) -> dict[str, Any]:
    """config.json of a bundle whose root file system is its "rootfs". words: instead of the container's arguments."""
    assert pod["hostNetwork"], "the network of a pod of its own is not made here"
    security = container["securityContext"]
    assert "privileged" not in security
    variables = environment(image, container, place)
    told = [*container.get("command", image.entrypoint), *(words or container.get("args", image.command))]
    argv = [re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], one) for one in told]
    user, group = ids(image, pod, container)
    kept = capabilities(container)
    given = [f"CAP_{one}" for one in kept]
    groups = [pod["securityContext"]["fsGroup"]] if "fsGroup" in pod["securityContext"] else []
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": security["readOnlyRootFilesystem"]},
        "process": {
            "user": {"uid": user, "gid": group, "additionalGids": groups},
            "args": argv,
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), given),
            "noNewPrivileges": not security["allowPrivilegeEscalation"],
        },
        "mounts": [
            *({"destination": to, "type": kind, "source": kind, "options": it.split()} for to, kind, it in OF_ITS_OWN),
            *(bound(path, path, True) for path in OF_THE_NODE),
            *(
                bound(str(place.volumes[one["name"]]), one["mountPath"], one.get("readOnly", False))
                for one in container["volumeMounts"]
            ),
        ],
        "linux": {
            # Those of a pod that is in its node's network and, where it says so, among its processes.
            "namespaces": [{"type": one} for one in ("mount", "ipc", *([] if pod.get("hostPID") else ["pid"]))],
            "maskedPaths": [*(f"/proc/{one}" for one in HIDDEN), "/sys/firmware", "/sys/devices/virtual/powercap"],
            "readonlyPaths": [f"/proc/{one}" for one in READ_ONLY],
            "resources": {"memory": {"limit": bytes_of(container["resources"]["limits"]["memory"])}},
            "seccomp": system_calls(pod, kept, place.profile),
        },
    }


def bound(source: str, target: str, is_read_only: bool) -> dict[str, Any]:
    return {
        "destination": target,
        "type": "bind",
        "source": source,
        "options": ["rbind", "rprivate", "ro" if is_read_only else "rw"],
    }


def bytes_of(quantity: str) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def system_calls(pod: Mapping[str, Any], kept: Sequence[str], profile: str) -> dict[str, Any]:
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    recorded = json.loads((seccomp.RECORDED / f"{profile}.json").read_text())
    return {
        "defaultAction": recorded["default"],
        "defaultErrnoRet": recorded["errno"],
        "architectures": ARCHITECTURES[platform.machine()],
        "syscalls": [*recorded["always"], *recorded["with"][seccomp.word(kept)]],
    }
