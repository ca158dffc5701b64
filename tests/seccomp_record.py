"""`python -m tests.seccomp_record`: what the runtimes' own code makes of "RuntimeDefault" for each set of capabilities
that containers of deploy/ and their tests have; without it the filter of tests/seccomp.py would be one we thought up.

Needs Go, and its module proxy. Each runtime's package is asked as the runtime asks it.
"""

from __future__ import annotations

import itertools
import json
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.seccomp import RECORDED, word

PROBE = ("NET_ADMIN", "NET_RAW", "SYSLOG", "SYS_ADMIN", "SYS_PTRACE")
SETS = (PROBE, *itertools.combinations(PROBE, 4), ("NET_RAW", "SYS_ADMIN", "SYS_PTRACE"), ("NET_ADMIN",), ())
# Name: module, its version, and Go that says (profile, error) of `spec`.
RUNTIMES = {
    "containerd-1": ("github.com/containerd/containerd", "v1.7.35", "contrib/seccomp", "p.DefaultProfile(spec), nil"),
    "containerd-2": ("github.com/containerd/containerd/v2", "v2.4.2", "contrib/seccomp", "p.DefaultProfile(spec), nil"),
    "docker": ("github.com/moby/profiles/seccomp", "v0.3.0", "", "p.GetDefaultProfile(spec)"),
}
# What Go is told of runtime-spec where the newest is too new for a module.
SPEC = {"containerd-1": "v1.2.0"}
PROGRAM = """package main

import (
	"encoding/json"
	"os"
	"strings"

	p "%(package)s"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func profile(spec *specs.Spec) (*specs.LinuxSeccomp, error) { return %(call)s }

func main() {
	found := map[string]*specs.LinuxSeccomp{}
	for _, word := range os.Args[1:] {
		names := []string{}
		for _, name := range strings.Split(word, "+") {
			if name != "" {
				names = append(names, "CAP_"+name)
			}
		}
		all := &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
		made, err := profile(&specs.Spec{Process: &specs.Process{Capabilities: all}, Linux: &specs.Linux{}})
		if err != nil {
			panic(err)
		}
		found[word] = made
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		panic(err)
	}
}
"""


def asked(name: str) -> dict[str, Any]:
    """The profile for each set of capabilities, as OCI's runtime specification writes it."""
    module, version, below, call = RUNTIMES[name]
    package = f"{module}/{below}".rstrip("/")
    with tempfile.TemporaryDirectory() as made:
        here = Path(made)
        (here / "main.go").write_text(PROGRAM % {"package": package, "call": call})
        specification = f"github.com/opencontainers/runtime-spec@{SPEC.get(name, 'latest')}"
        for words in (["mod", "init", "recorded"], ["get", f"{module}@{version}", specification], ["mod", "tidy"]):
            subprocess.run(["go", *words], cwd=here, check=True)
        done = subprocess.run(["go", "run", ".", *map(word, SETS)], cwd=here, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    for name, (module, version, _, _) in RUNTIMES.items():
        profiles = asked(name)
        first = next(iter(profiles.values()))
        for one in profiles.values():
            assert {key: one[key] for key in one if key != "syscalls"} == {
                key: first[key] for key in first if key != "syscalls"
            }
        rules = {key: [json.dumps(rule, sort_keys=True) for rule in one["syscalls"]] for key, one in profiles.items()}
        always = [rule for rule in next(iter(rules.values())) if all(rule in one for one in rules.values())]
        recorded = {
            "module": f"{module}@{version}",
            "machine": platform.machine(),
            "default": first["defaultAction"],
            "errno": first.get("defaultErrnoRet", 1),
            "always": [json.loads(rule) for rule in always],
            "with": {key: [json.loads(rule) for rule in one if rule not in always] for key, one in rules.items()},
        }
        (RECORDED / f"{name}.json").write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
