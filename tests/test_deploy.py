"""What is applied to a cluster: well-formed for each Kubernetes it is meant for, and with no power nobody showed to be
needed. Nothing of it is run here: there is no Kubernetes on the machines that test it."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from bot.observe import EXAMPLE, address
from bot.preflight.nodes import NO_PROBE
from fixes import configuration
from lab.apiserver.tiers import TIERED
from node_probe import scene
from node_probe.command import DEFAULT_PORT
from tests import manifests
from tests.manifests import DEPLOY, OVERLAYS

ROOT = DEPLOY.parent
# They read all definitions of a Kubernetes, some megabytes of JSON, for every object they look at.
utils.schema_contents = functools.cache(utils.schema_contents)
utils.all_versions = functools.cache(utils.all_versions)
# From the first that has the policies of fixes/admission.yaml to the newest whose schema the package has.
VERSIONS = ("1.30", "1.32", "1.34", "1.37")
WITH_FIXERS = [one for one in OVERLAYS if one != "restricted"]
PROBE = {"NET_ADMIN", "NET_RAW", "SYSLOG", "SYS_ADMIN", "SYS_PTRACE"}
CAPABILITIES = {
    "calico-why-bot/preflight": set(),
    "calico-why-bot/bot": set(),
    "calico-why-cluster-fixer/fixer": set(),
    "calico-why-signer/signer": set(),
    "calico-why-node/certificate": set(),
    "calico-why-node/probe": PROBE,
    "calico-why-node/fixer": {"NET_ADMIN"},
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_object_is_what_this_kubernetes_knows(overlay: str, version: str) -> None:
    for it in manifests.objects(overlay):
        kubernetes_validate.validate(it, version, strict=True)


def test_what_kubernetes_does_not_know_would_be_found() -> None:
    bot = yaml.safe_load(yaml.safe_dump(manifests.one("socket-mode", "Deployment", "calico-why-bot")))
    bot["spec"]["template"]["spec"]["hostNetwrok"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(bot, VERSIONS[0], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_of_it_is_in_its_namespace_but_the_rights_on_calicos_pods(overlay: str) -> None:
    elsewhere = {
        (it["kind"], it["metadata"]["namespace"])
        for it in manifests.objects(overlay)
        if it["metadata"].get("namespace", "calico-why") != "calico-why"
    }
    assert {kind for kind, _ in elsewhere} == {"Role", "RoleBinding"}
    assert len({namespace for _, namespace in elsewhere}) == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_container_has_the_capabilities_that_were_shown_to_be_needed_and_no_other_power(overlay: str) -> None:
    wanted = dict(CAPABILITIES)
    if overlay == "restricted":
        wanted = {name: given for name, given in wanted.items() if not name.endswith("/fixer")}
        wanted["calico-why-node/probe"] = PROBE - {"NET_ADMIN", "SYSLOG"}
    found = manifests.containers(overlay)
    assert found.keys() == wanted.keys()
    for name, container in found.items():
        security = container["securityContext"]
        assert security["capabilities"]["drop"] == ["ALL"], name
        assert set(security["capabilities"].get("add") or ()) == wanted[name], name
        assert security["readOnlyRootFilesystem"] is True and security["allowPrivilegeEscalation"] is False, name
        assert not security.get("privileged") and "procMount" not in security, name
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_confined_and_in_their_nodes_network(overlay: str) -> None:
    for it in manifests.objects(overlay):
        if it["kind"] not in ("Deployment", "DaemonSet"):
            continue
        spec = it["spec"]["template"]["spec"]
        security = spec["securityContext"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        # A resolver or a default route of the pods' network would be what is broken.
        assert spec["hostNetwork"] is True and spec["dnsPolicy"] == "Default"
        if it["kind"] == "Deployment":
            assert security["runAsNonRoot"] is True and security["runAsUser"] == 65532 and not spec.get("hostPID")
            assert spec["priorityClassName"] == "system-cluster-critical"
        else:
            assert spec["hostPID"] is True and spec["priorityClassName"] == "system-node-critical"
            assert spec["tolerations"] == [{"operator": "Exists"}]
        host = {volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume}
        assert host <= ({"/proc/sys/net"} if it["kind"] == "DaemonSet" and overlay != "restricted" else set())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_probe_has_no_token_and_the_others_one_that_names_their_node(overlay: str) -> None:
    spec = manifests.pod(overlay, "DaemonSet", "calico-why-node")
    assert spec["automountServiceAccountToken"] is False
    tokens = {volume["name"] for volume in spec["volumes"] if "serviceAccountToken" in str(volume.get("projected"))}
    mounted = {
        container["name"]
        for container in spec["containers"]
        if tokens & {mount["name"] for mount in container["volumeMounts"]}
    }
    assert mounted == ({"certificate", "fixer"} if overlay in WITH_FIXERS else {"certificate"})
    assert spec["serviceAccountName"] == "calico-why-node"
    for volume in spec["volumes"]:
        for source in (volume.get("projected") or {}).get("sources", ()):
            # Another audience than the API server's own is not let in.
            assert "audience" not in source.get("serviceAccountToken", {})


@pytest.mark.parametrize("overlay", WITH_FIXERS)
def test_probe_and_fixer_share_no_volume(overlay: str) -> None:
    spec = manifests.pod(overlay, "DaemonSet", "calico-why-node")
    mounts = {one["name"]: {mount["name"] for mount in one["volumeMounts"]} for one in spec["containers"]}
    assert not mounts["probe"] & mounts["fixer"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_nodes_key_is_on_no_disk_and_seen_by_nobody_but_its_probe_and_who_makes_it(overlay: str) -> None:
    spec = manifests.pod(overlay, "DaemonSet", "calico-why-node")
    (certs,) = [one for one in spec["volumes"] if one["name"] == "certs"]
    assert certs["emptyDir"]["medium"] == "Memory"
    mounts = {
        one["name"]: mount for one in spec["containers"] for mount in one["volumeMounts"] if mount["name"] == "certs"
    }
    assert mounts.keys() == {"probe", "certificate"}
    assert mounts["probe"]["readOnly"] is True


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_the_signer_fills_has_no_fields_that_applying_again_would_put_back(overlay: str) -> None:
    for kind, name in (
        ("Secret", "calico-why-authority"),
        ("ConfigMap", "calico-why-authority"),
        ("Secret", "calico-why-bot-certs"),
    ):
        assert manifests.one(overlay, kind, name).keys() == {"apiVersion", "kind", "metadata"}


def test_cert_manager_may_make_the_authority_instead(tmp_path: Path) -> None:
    parts = {
        "resources": [os.path.relpath(DEPLOY / "base", tmp_path)],
        "components": [os.path.relpath(DEPLOY / "components" / "cert-manager", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(parts))
    found = list(yaml.safe_load_all(manifests.rendered(tmp_path)))
    secrets = {it["metadata"]["name"] for it in found if it["kind"] == "Secret"}
    assert secrets == {"calico-why-bot-certs"}, "the Secret is made by cert-manager, of its own type"
    (certificate,) = [it["spec"] for it in found if it["kind"] == "Certificate"]
    assert certificate["isCA"] is True and certificate["secretName"] == "calico-why-authority"
    assert {"kind": "Issuer", "name": certificate["issuerRef"]["name"]} in [
        {"kind": it["kind"], "name": it["metadata"]["name"]} for it in found
    ]


def test_openshift_lets_in_every_account_that_has_pods_and_runs_probes_on_every_node(tmp_path: Path) -> None:
    parts = {
        "resources": [os.path.relpath(DEPLOY / "overlays" / "http", tmp_path)],
        "components": [os.path.relpath(DEPLOY / "components" / "openshift", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(parts))
    found = list(yaml.safe_load_all(manifests.rendered(tmp_path)))
    (binding,) = [it for it in found if (it["kind"], it["metadata"]["name"]) == ("RoleBinding", "calico-why-openshift")]
    accounts = {
        it["spec"]["template"]["spec"]["serviceAccountName"]
        for it in found
        if it["kind"] in ("Deployment", "DaemonSet")
    }
    assert {subject["name"] for subject in binding["subjects"]} == accounts
    (role,) = [it for it in found if (it["kind"], it["metadata"]["name"]) == ("Role", binding["roleRef"]["name"])]
    assert role["rules"] == [
        {
            "apiGroups": ["security.openshift.io"],
            "resources": ["securitycontextconstraints"],
            "resourceNames": ["privileged"],
            "verbs": ["use"],
        }
    ]
    (namespace,) = [it for it in found if it["kind"] == "Namespace"]
    assert namespace["metadata"]["annotations"]["openshift.io/node-selector"] == ""
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


def test_what_install_md_has_people_write_into_an_overlay_does_what_it_says(tmp_path: Path) -> None:
    """Where the image is, a password for images, one bot on one node, and the authority of a proxy."""
    page = (ROOT / "docs" / "install.md").read_text()
    said = dict(re.findall(r"`(images|replicas|patches|configMapGenerator): (\[.*?\])`", page))
    parts = {
        "resources": [os.path.relpath(DEPLOY / "overlays" / "socket-mode", tmp_path)],
        **{key: yaml.safe_load(value) for key, value in said.items()},
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(parts))
    (tmp_path / "ca.crt").write_text("authority")
    found = list(yaml.safe_load_all(manifests.rendered(tmp_path)))
    pods = [it["spec"]["template"]["spec"] for it in found if it["kind"] in ("Deployment", "DaemonSet")]
    used = {one["image"] for pod in pods for one in (*pod["containers"], *pod.get("initContainers", ()))}
    assert used == {"<registry>/calico-why@sha256:…"}
    accounts = [it for it in found if it["kind"] == "ServiceAccount"]
    assert len(accounts) == 4 and all(it["imagePullSecrets"] == [{"name": "NAME"}] for it in accounts)
    (bot,) = [it["spec"] for it in found if (it["kind"], it["metadata"]["name"]) == ("Deployment", "calico-why-bot")]
    assert bot["replicas"] == 1
    (settings,) = [it for it in found if it["kind"] == "ConfigMap" and "data" in it]
    assert settings["data"].keys() == {"calico-why.yaml", "ca.crt"}
    (config,) = [one for one in bot["template"]["spec"]["volumes"] if one["name"] == "config"]
    assert config["configMap"]["name"] == settings["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_is_of_one_image_of_this_version(overlay: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {container["image"] for container in manifests.containers(overlay).values()}
    assert images == {f"calico-why:{'dev' if overlay == 'dev' else version}"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_name_that_a_pod_needs_is_there_or_is_a_secret_that_the_docs_make(overlay: str) -> None:
    made = {(it["kind"], it["metadata"]["name"]) for it in manifests.objects(overlay)}
    wanted: set[tuple[str, str]] = set()
    for it in manifests.objects(overlay):
        if it["kind"] not in ("Deployment", "DaemonSet"):
            continue
        spec = it["spec"]["template"]["spec"]
        if "serviceAccountName" in spec:
            wanted.add(("ServiceAccount", spec["serviceAccountName"]))
        wanted |= {("Secret", volume["secret"]["secretName"]) for volume in spec["volumes"] if "secret" in volume}
        wanted |= {("ConfigMap", volume["configMap"]["name"]) for volume in spec["volumes"] if "configMap" in volume}
        for container in spec["containers"]:
            for source in container.get("envFrom") or ():
                wanted |= {
                    (kind, source[key]["name"])
                    for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef"))
                    if key in source
                }
    bound = {
        ("ServiceAccount", subject["name"])
        for it in manifests.objects(overlay)
        if it["kind"].endswith("Binding") and "subjects" in it
        for subject in it["subjects"]
    }
    missing = (wanted | bound) - made
    assert {kind for kind, _ in missing} == {"Secret"}
    install = (ROOT / "docs" / "install.md").read_text()
    assert all(name in install for _, name in missing)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_listens_but_the_probe_what_the_bot_is_looked_at_by_and_slacks_way_in(overlay: str) -> None:
    ports = {
        (name, port["containerPort"])
        for name, container in manifests.containers(overlay).items()
        for port in container.get("ports") or ()
    }
    slack = {("calico-why-bot/bot", 3000)} if overlay == "http" else set()
    looked_at = ("calico-why-bot/bot", address(EXAMPLE)[1])
    assert ports == {("calico-why-node/probe", int(DEFAULT_PORT)), looked_at, *slack}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_bot_is_looked_at_from_its_own_node_only_and_by_the_pages_there_are(overlay: str) -> None:
    bot = manifests.containers(overlay)["calico-why-bot/bot"]
    told = {one["name"]: one.get("value") for one in bot["env"]}
    assert told["CALICO_WHY_OBSERVE"] == EXAMPLE
    host, port = address(EXAMPLE)
    for name, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert bot[name]["httpGet"] == {"host": host, "path": path, "port": "observe"}
    (observe,) = [one for one in bot["ports"] if one["name"] == "observe"]
    # A port of the node: of two bots the scheduler puts none beside the other, where it could not listen.
    assert observe["containerPort"] == observe["hostPort"] == port


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_bot_and_fixers_read_one_file_and_it_is_right(overlay: str, tmp_path: Path) -> None:
    file = tmp_path / "calico-why.yaml"
    file.write_text(manifests.configuration(overlay))
    read = {name for name in manifests.containers(overlay) if name.split("/")[1] in ("bot", "fixer")}
    for name in read:
        container = manifests.containers(overlay)[name]
        told = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        (mount,) = [one for one in container["volumeMounts"] if one["name"] == "config"]
        assert told.pop("CALICO_WHY_CONFIG") == f"{mount['mountPath']}/calico-why.yaml"
        told = {key: value.replace("$(NODE_ADDRESS)", "192.0.2.1") for key, value in told.items()}
        found = configuration.read(told, file=str(file))
        assert found.here.cluster == ("dev" if overlay == "dev" else "cluster"), name
        assert not found.development and not found.here.approvers.entries
        if name == "calico-why-bot/bot":
            assert found.slack_mode == ("http" if overlay == "http" else "socket")
            assert found.slack_capture == ("approvers" if overlay == "restricted" else "headers")
            assert found.state == Path("/var/lib/calico-why")
            assert str(found.here.certs) == "/etc/calico-why/certs"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_preflight_looks_with_the_bots_eyes_before_it_starts_and_never_keeps_it_from_that(
    overlay: str, tmp_path: Path
) -> None:
    spec = manifests.pod(overlay, "Deployment", "calico-why-bot")
    (first,), (bot,) = spec["initContainers"], spec["containers"]
    told = {one["name"]: one for one in first["env"]}
    assert all(one in bot["env"] for one in told.values()) and first["envFrom"] == bot["envFrom"]
    assert first["volumeMounts"] == bot["volumeMounts"]
    # In front of no cluster, with a configuration that is not there.
    place = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    place |= {name: one["value"] for name, one in told.items() if "value" in one}
    done = subprocess.run(first["command"], env=place, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "calico-why.yaml" in done.stdout + done.stderr


def test_replicas_of_the_bot_are_kept_apart_and_one_is_always_left() -> None:
    bot = manifests.one("socket-mode", "Deployment", "calico-why-bot")["spec"]
    (apart,) = bot["template"]["spec"]["topologySpreadConstraints"]
    budget = manifests.one("socket-mode", "PodDisruptionBudget", "calico-why-bot")["spec"]
    assert bot["replicas"] == 2 and bot["strategy"]["rollingUpdate"]["maxUnavailable"] == 1
    assert (apart["topologyKey"], apart["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")
    assert budget["maxUnavailable"] == 1 and "minAvailable" not in budget, "of one replica, too, a node can be drained"
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "a bot without its Secret keeps no node from it"
    labels = bot["template"]["metadata"]["labels"]
    assert bot["selector"]["matchLabels"] == budget["selector"]["matchLabels"] == labels
    assert apart["labelSelector"]["matchLabels"] == labels


@pytest.mark.parametrize("overlay", WITH_FIXERS)
def test_who_writes_a_policy_may_do_so_in_every_tier(overlay: str) -> None:
    """Calico asks for it where its objects are in projectcalico.org/v3: tier.networkpolicies, and to get tiers."""
    may = {
        (resource, verb)
        for rule in manifests.one(overlay, "ClusterRole", "calico-why-cluster-fixer")["rules"]
        if "projectcalico.org" in rule["apiGroups"] and "resourceNames" not in rule
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    written = {(plural, verb) for plural in TIERED for verb in ("create", "update", "delete")}
    assert written <= may and ("tiers", "get") in may
    policies = {(plural, verb) for plural, verb in may if plural in TIERED}
    assert {one for one in may if one[0].startswith("tier.")} == {(f"tier.{plural}", verb) for plural, verb in policies}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_there_is_leave_for_the_priorities_that_pods_have(overlay: str) -> None:
    """GKE makes no pod of them elsewhere: "insufficient quota to match these scopes"."""
    (leave,) = manifests.one(overlay, "ResourceQuota", "calico-why-critical-pods")["spec"]["scopeSelector"].values()
    (scope,) = leave
    used = {
        it["spec"]["template"]["spec"]["priorityClassName"]
        for it in manifests.objects(overlay)
        if it["kind"] in ("Deployment", "DaemonSet")
    }
    assert (scope["scopeName"], scope["operator"], set(scope["values"])) == ("PriorityClass", "In", used)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_go_to_nodes_that_can_run_them_also_while_calico_is_broken(overlay: str) -> None:
    for it in manifests.objects(overlay):
        if it["kind"] not in ("Deployment", "DaemonSet"):
            continue
        spec = it["spec"]["template"]["spec"]
        assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
        if it["kind"] == "Deployment":
            tolerated = {one["key"].partition("/")[2] for one in spec["tolerations"]}
            assert tolerated == {"network-unavailable", "not-ready", "control-plane"}
            # From a node that is gone they go elsewhere, as all pods do.
            assert {(one["operator"], one["effect"]) for one in spec["tolerations"]} == {("Exists", "NoSchedule")}
        else:
            (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
                "nodeSelectorTerms"
            ]
            refused = {(one["key"], *one["values"]) for one in term["matchExpressions"] if one["operator"] == "NotIn"}
            assert refused == NO_PROBE, "as preflight has it"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selinux_lets_probe_and_fixer_look_at_their_node_and_confines_the_others(overlay: str) -> None:
    wide = {
        name
        for name, container in manifests.containers(overlay).items()
        if container["securityContext"].get("seLinuxOptions") == {"level": "s0", "type": "spc_t"}
    }
    told = {name for name, one in manifests.containers(overlay).items() if "seLinuxOptions" in one["securityContext"]}
    assert wide == told == {"calico-why-node/probe", "calico-why-node/fixer"} & manifests.containers(overlay).keys()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_capabilities_are_spelled_as_kubernetes_takes_them(overlay: str) -> None:
    """Beside allowPrivilegeEscalation: false it refuses CAP_SYS_ADMIN, and takes SYS_ADMIN."""
    for container in manifests.containers(overlay).values():
        added = container["securityContext"]["capabilities"].get("add") or ()
        assert not [one for one in added if one.startswith("CAP_")]


def test_switch_and_lease_have_no_fields_that_applying_again_would_put_back() -> None:
    for kind, name in (("ConfigMap", "calico-why-fixes"), ("Lease", "calico-why-fixer")):
        assert manifests.one("socket-mode", kind, name).keys() == {"apiVersion", "kind", "metadata"}


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, rest) each, continued lines joined, comments left out."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word, " ".join(rest.split()))
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def test_the_image_is_of_one_base_pinned_by_digest_and_runs_as_nobody_special() -> None:
    found = dockerfile()
    assert [rest.split()[0] for word, rest in found if word == "FROM"] == ["${PYTHON_IMAGE}@${PYTHON_DIGEST}"] * 2
    assert ("ARG", "PYTHON_DIGEST") in found, "a default would be a digest nobody looked at"
    users = [rest for word, rest in found if word == "USER"]
    assert users == ["65532:65532"]
    assert any(word == "ENV" and "CALICO_WHY_LOG=json" in rest for word, rest in found)
    assert found[-2:] == [("ENTRYPOINT", '["calico-why"]'), ("CMD", '["--help"]')]


def test_the_image_has_the_compilers_flag_the_packages_and_the_tools_the_probe_asks() -> None:
    found = dockerfile()
    flag = next(rest.partition("=")[2] for word, rest in found if word == "ENV" and rest.startswith("CPPFLAGS"))
    assert flag in (ROOT / ".ci" / "venv").read_text()
    copied = {one.rstrip("/") for word, rest in found if word == "COPY" for one in rest.split()[:-1]}
    include = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    # Without what breaks networks; and of deploy/ are links in packages.
    packages = {one.rstrip("*") for one in include} - {"lab"}
    from_stage = {"--from=built", "/others/usr/local", "/own/usr/local"}
    assert packages | {"pyproject.toml", "README.md", "deploy"} | from_stage == copied
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    sent = {one.removeprefix("!").partition("/")[0] for one in ignored if one.startswith("!")}
    assert sent == copied - from_stage


# Of each program that the probe runs, Debian's package. util-linux is in every image.
PACKAGES = {
    **dict.fromkeys(("ip", "bridge", "tc", "ss"), "iproute2"),
    **dict.fromkeys((f"{ip}tables-{kind}-save" for ip in ("ip", "ip6") for kind in ("nft", "legacy")), "iptables"),
    "nft": "nftables",
    "ipset": "ipset",
    "wg": "wireguard-tools",
    "dmesg": "util-linux",
}


def test_the_image_has_the_tools_that_the_probe_runs_and_no_others() -> None:
    run_by = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "node_probe").rglob("*.py")
        if re.search(r"Popen\(|create_subprocess_exec\(|subprocess\.run\(", path.read_text())
    }
    assert run_by == {"node_probe/scene.py", "node_probe/firewall/reading.py"}, "which programs does it run?"
    rules = (ROOT / "node_probe/firewall/reading.py").read_text()
    wanted = {command[0] for command in scene.TOOLS.values()} | set(re.findall(r'\("(nft|ipset)"', rules))
    assert '(f"{ip}tables-legacy-save", "-c")' in rules and 'f"{ip}tables-nft-save"' in rules
    assert wanted == PACKAGES.keys()
    (installed,) = [rest for word, rest in dockerfile() if word == "RUN" and "nftables" in rest]
    packages = re.search(r"--no-install-recommends ([-a-z0-9 ]+?) &&", installed)
    assert packages and set(packages[1].split()) == set(PACKAGES.values()) - {"util-linux"}


@pytest.mark.parametrize("tool", PACKAGES)
def test_that_package_has_the_tool(tool: str) -> None:
    if shutil.which("dpkg-query") is None or (path := shutil.which(tool)) is None:
        pytest.skip(f"no {tool} of Debian on this machine")
    # Where /bin is a link into /usr the package may know either name.
    names = {path, str(Path(path).resolve()), path.removeprefix("/usr")}
    told = [subprocess.run(["dpkg-query", "--search", one], capture_output=True, text=True).stdout for one in names]
    assert PACKAGES[tool] in {line.partition(":")[0] for line in "".join(told).splitlines()}


def _kustomizations() -> list[Path]:
    return [*DEPLOY.rglob("kustomization.yaml"), ROOT / "fixes" / "kustomization.yaml"]


@pytest.mark.parametrize("path", _kustomizations(), ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_every_file_beside_a_kustomization_is_in_it(path: Path) -> None:
    read: dict[str, Any] = yaml.safe_load(path.read_text())
    named = {str(one) for one in read.get("resources") or ()}
    named |= {str(one["path"]) for one in read.get("patches") or () if "path" in one}
    named |= {str(name) for one in read.get("configMapGenerator") or () for name in one.get("files") or ()}
    files = {one.name for one in path.parent.iterdir() if one.suffix in (".yaml", ".env")} - {path.name}
    assert files == {one for one in named if not one.startswith("..")}
