"""One lab for all tests that need a real kernel; without it each of them would start its own."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import hypothesis
import pytest
import yaml

from lab import client
from lab.client import Lab
from lab.errors import NamespacesForbidden
from tests import calls, exhaustive
from tests.lab_forks import LabForks

# The kubernetes client reads its kubeconfig by PyYAML's slow loader, some four thousand times in a run of all tests;
# the one of libyaml reads the same.
if yaml.__with_libyaml__:
    yaml.SafeLoader = yaml.CSafeLoader  # type: ignore[misc]

# A machine that is busy is slow, and no test fails for that.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

# Nobody here speaks TLS to anything but what he has the authority of. Every client and every program that loads aiohttp
# would read all authorities of this machine first.
os.environ["SSL_CERT_FILE"] = os.devnull

client.launch = LabForks().launch

# The files that take a worker of `make test` longest, as `pytest --durations=0` tells. One that is begun last would be
# waited for by all others.
LONGEST_FIRST = (
    "test_answers_refused",
    "test_lab",
    "test_commands_on_lab",
    "test_deploy_rbac",
    "test_cases",
    "test_own_faults_slack",
    "test_answers_iptables",
    "test_ipam_check_on_lab",
    "test_own_faults_cluster",
    "test_host_firewalls_on_lab",
    "test_node_fixes_on_lab",
    "test_variants",
    "test_answers_dualstack",
    "test_network_on_lab",
    "test_bot_slack",
    "test_recorded_ways",
    "test_docs_cluster",
    "test_bypass_on_lab",
    "test_large_on_lab",
    "test_metrics",
    "test_demo",
    "test_less_sight",
    "test_heal_runs",
    "test_answers_policies",
    "test_deploy_on_lab",
    "test_capture_approval",
    "test_services_on_lab",
    "test_own_faults_end",
    "test_stages",
    "test_answers_on_lab",
    "test_collectors",
    "test_watch",
    "test_recorded_states",
    "test_approvals_slack",
    "test_recorded_objects_on_lab",
    "test_lab_policies",
    "test_slack_page",
    "test_clicks",
    "test_trial",
    "test_load",
    "test_calls",
    "test_firewall_trace",
    "test_docs_commands",
    "test_ipv6",
    "test_cards",
    "test_certificates",
    "test_planted_tokens",
    "test_several_clusters_on_lab",
    "test_answers_crosssubnet",
    "test_cluster_fixes",
    "test_capture",
    "test_lab_felix",
    "test_cluster_fixes_on_lab",
    "test_traffic_control",
    "test_recorded_less_sight",
    "test_configuration",
    "test_executor",
    "test_policies_on_lab",
    "test_bypass",
)


def pytest_configure(config: pytest.Config) -> None:
    for plugin in (*calls.plugins(config), exhaustive.LeftOut()):
        config.pluginmanager.register(plugin)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Every worker imports all tests and reads their recordings: some millions of objects that stay to the end. Looking
    through them for garbage again and again would take longer than making them, and would go on below every test."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def skipped_where_no_lab_can_be() -> Generator[None, None, None]:
    try:
        return (yield)
    except NamespacesForbidden as error:
        pytest.skip(error.sentence)


# Of a fixture and of a test alike: what one of a session or module raised is raised anew for each test that uses it.
pytest_runtest_setup = pytest.hookimpl(wrapper=True)(skipped_where_no_lab_can_be)
pytest_runtest_call = pytest.hookimpl(wrapper=True)(skipped_where_no_lab_can_be)


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[Lab]:
    """Three nodes, six pods, probes and fixers."""
    with Lab.up() as lab:
        yield lab


@pytest.fixture
def lab(shared_lab: Lab) -> Lab:
    """The shared lab as it was when it came up, whatever the last test did to it."""
    shared_lab.heal()
    return shared_lab


@pytest.fixture(scope="module")
def labs(shared_lab: Lab) -> Iterator[Callable[[str], Lab]]:
    """A lab of a shape, as it was when it came up; each comes up once."""
    up = {"": shared_lab}
    with ExitStack() as stack:

        def of(shape: str) -> Lab:
            if shape not in up:
                up[shape] = stack.enter_context(Lab.up(variant=shape, fixers=False))
            up[shape].heal()
            return up[shape]

        yield of
