"""`calico-why lab ...`: the lab on the command line; without it only programs could use it."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.client import Lab
from lab.errors import LabError
from lab.settings import RBAC, Settings
from lab.state import find

HELP = "a cluster on this machine: real kernel, no Kubernetes, no root"
FROM, TO = "shop/cart", "shop/db"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = parser.add_subparsers(dest="lab_word", required=True, metavar="WORD")

    def word(name: str, text: str) -> argparse.ArgumentParser:
        made = words.add_parser(name, help=text, description=text)
        made.add_argument("--name", help="which lab (the only one that is up; for `up`: lab)")
        return made

    up = word("up", "start a lab and stay until Ctrl-C")
    up.add_argument("--nodes", type=int, default=3)
    up.add_argument("--pods-per-node", type=int, default=2)
    up.add_argument(
        "--variant", default="", metavar="NAME[+NAME...]", help="in which healthy shapes (`lab variants` lists them)"
    )
    up.add_argument(
        "--objects", metavar="DIR", help="build the nodes and pods of DIR/k8s/*.json and DIR/cr/*.json instead"
    )
    up.add_argument("--heal", action="store_true", help="Felix repairs what it repairs on a real node, at its own pace")
    up.add_argument("--slack", action="store_true", help="with a local Slack to sit in")
    up.add_argument("--detach", action="store_true", help="return when it is up; `calico-why lab down` ends it")
    up.add_argument("--no-workers", action="store_true", help="without probes and fixers on the nodes")
    up.add_argument("--no-fixers", action="store_true", help="without fixers on the nodes")
    up.add_argument(
        "--rbac",
        metavar="FILE|DIR",
        default=os.environ.get(RBAC, ""),
        help="the product's accounts may do what the RBAC in FILE gives them, no more; of DIR that in NAMESPACE.yaml, "
        f"by where Calico's own pods are (${RBAC})",
    )
    up.add_argument("--report-fd", type=int, help=argparse.SUPPRESS)
    word("down", "take a lab down")
    run_inside = word("exec", "run a command inside a node or a pod")
    run_inside.add_argument("place", metavar="NODE|NAMESPACE/POD")
    run_inside.add_argument("argv", nargs="+", metavar="-- COMMAND", help="the command and its arguments, after --")
    inflict = word("inflict", "break something on purpose")
    inflict.add_argument("fault")
    inflict.add_argument("--from", dest="source", default=FROM, metavar="NAMESPACE/POD", help=f"({FROM})")
    inflict.add_argument("--to", dest="target", default=TO, metavar="NAMESPACE/POD", help=f"({TO})")
    inflict.add_argument("--family", type=int, choices=(4, 6), default=4, help="whose leg, where there are two (4)")
    inflict.add_argument("--where", choices=("source", "target"), help="whose node to wound")
    word("heal", "everything as it was when the lab came up")
    word("faults", "what can be broken")
    word("variants", "the shapes a healthy cluster can have")
    status = word("status", "what the lab consists of and how it is")
    status.add_argument("-o", "--output", choices=("text", "json"), default="text")
    word("env", 'what a shell needs: eval "$(calico-why lab env)"')


def run(args: argparse.Namespace) -> int:
    """The exit status; of `exec` that of the command it ran."""
    try:
        return _run(args)
    except LabError as error:
        print(error.sentence, file=sys.stderr)
        return error.status


def _faults() -> int:
    """What can be broken is known before a lab is up."""
    from lab.faults import describe, load, names, needs

    for name in names():
        lacking = f" (needs {needs(name)}, which no lab has)" if needs(name) else ""
        print(f"{name:<28} {'|'.join(load(name).WHERE):<14} {describe(name)}{lacking}")
    return 0


def _variants() -> int:
    from lab.variants import VARIANTS

    for name, variant in VARIANTS.items():
        print(f"{name:<28} {variant.text}")
    return 0


def _run(args: argparse.Namespace) -> int:
    if args.lab_word == "up":
        return _up_with_slack(args) if args.slack else _up(args, Settings())
    if args.lab_word == "faults":
        return _faults()
    if args.lab_word == "variants":
        return _variants()
    lab = Lab(find(args.name))
    match args.lab_word:
        case "down":
            lab.down()
            print(f"The lab {lab.name} is down.")
        case "exec":
            return lab.run(args.place, args.argv, sys.stdin.buffer, sys.stdout.buffer, sys.stderr.buffer)
        case "inflict":
            told = lab.inflict(args.fault, args.source, args.target, args.where or "", args.family)
            print(f"{told['fault']} inflicted on {told['node']}.")
            print(f"Ask: calico-why why {told['source']} {told['target']}    Undo: calico-why lab heal")
        case "heal":
            lab.heal()
            print(f"The lab {lab.name} is as it was when it came up.")
        case "status":
            _print_status(lab, args.output)
        case "env":
            print((lab.directory / "env").read_text(), end="")
    return 0


def _up_with_slack(args: argparse.Namespace) -> int:
    from lab.slack_seat import slack_beside

    if args.detach:
        raise LabError("A local Slack ends with the command that started it: --slack goes without --detach.", 2)
    with slack_beside() as (page, environment):
        os.environ.update(environment)  # the fixers ask it who may approve
        print(f"  {page}  is the local Slack; calico-why bot speaks to it", flush=True)
        return _up(args, Settings(environment=tuple(environment.items())))


def _up(args: argparse.Namespace, settings: Settings) -> int:
    from lab.launcher import error_message, launch

    settings = replace(
        settings,
        nodes=args.nodes,
        pods_per_node=args.pods_per_node,
        variant=args.variant,
        objects=str(Path(args.objects).resolve()) if args.objects else "",
        heal=args.heal,
        workers=not args.no_workers,
        fixers=not args.no_fixers,
        rbac=str(Path(args.rbac).resolve()) if args.rbac else "",
    )
    name = args.name or "lab"
    if args.report_fd is not None:
        parent = socket.socket(fileno=args.report_fd)
        os.set_inheritable(args.report_fd, False)
        try:
            return launch(settings, name, lambda message: _tell(parent, message), parent)
        except LabError as error:
            _tell(parent, error_message(error))
            return error.status
    if args.detach:
        return _detached(settings, name)
    return launch(settings, name, _print_report)


def _tell(wire: socket.socket, message: dict[str, Any]) -> None:
    try:
        wire.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        return  # whoever started the lab is gone; the launcher sees that and ends it


def _detached(settings: Settings, name: str) -> int:
    """The lab lives on in a process of its own session; this one returns when it is ready."""
    from lab.launcher import error_message, launch

    reading, writing = os.pipe()
    sys.stdout.flush()
    if os.fork() == 0:
        status = 3
        try:
            os.close(reading)
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for target in (0, 1, 2):
                os.dup2(null, target)

            def report(message: dict[str, Any]) -> None:
                try:
                    os.write(writing, json.dumps(message).encode() + b"\n")
                except BrokenPipeError:
                    return

            try:
                status = launch(settings, name, report)
            except LabError as error:
                report(error_message(error))
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as lines:
        for line in lines:
            message = json.loads(line)
            _print_report(message, foreground=False)
            if "ready" in message:
                return 0
            if "error" in message:
                return int(message.get("status", 3))
    return 3


def _print_report(message: dict[str, Any], foreground: bool = True) -> None:
    if "progress" in message:
        print(f"  {message['progress']}", flush=True)
    if "error" in message:
        print(message["error"], file=sys.stderr, flush=True)
    if "ready" in message:
        status = message["ready"]
        name = f" --name {status['name']}" if status["name"] != "lab" else ""
        print(
            f"The lab {status['name']} is up after {status['times']['ready_s']} s.\n"
            f"  kubectl --kubeconfig {status['directory']}/kubeconfig get pods -A -o wide\n"
            f'  eval "$(calico-why lab env{name})"     then: calico-why why {FROM} {TO}\n'
            f"  calico-why lab faults{name}            what can be broken\n"
            + ("Ctrl-C takes it down." if foreground else f"calico-why lab down{name} takes it down."),
            flush=True,
        )


def _print_status(lab: Lab, output: str) -> None:
    status = lab.status()
    mesh = lab.mesh()
    if output == "json":
        print(json.dumps({**status, "mesh": mesh}, indent=2))
        return
    print(f"{status['name']}: {len(status['nodes'])} nodes, {len(status['pods'])} pods, files in {status['directory']}")
    for node in status["nodes"]:
        workers = ", ".join(
            f"{word} {node[word]['state']}" + (f" ({node[word]['starts']} starts)" if node[word]["starts"] > 1 else "")
            for word in ("probe", "fixer")
            if word in node
        )
        print(f"  {node['name']:<10} {node['address']:<15} tunnel {node['tunnel_address'] or '-':<16} {workers}")
        for pod in status["pods"]:
            if pod["node"] == node["name"]:
                print(f"    {pod['name']:<20} {pod['address']:<16} {pod['interface']}")
    answered = mesh["pairs"] - len(mesh["unanswered"])
    print(f"{answered} of {mesh['pairs']} pod pairs answer a ping.")
    for source, target in mesh["unanswered"][:10]:
        print(f"  {source} does not reach {target}")
    for wound in status["inflicted"]:
        print(f"Inflicted: {wound['fault']} on {wound['node']}")
