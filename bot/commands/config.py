"""`calico-why config`: what holds and where it is from; without it nobody could tell which of three places decided."""

from __future__ import annotations

import argparse
import os

from bot import language as languages
from bot import settings as connection
from fixes.configuration import SECRETS

HELP = "config: what the configuration says and where each value is from, and all that is wrong with it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    languages.add_argument(parser)
    connection.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 where nothing is wrong. Raises UserError with all that is."""
    found, wrong = connection.look(args)
    if wrong := [*wrong, *connection.of_kubeconfigs(found, named=True)]:
        raise connection.refused(wrong)
    rows = [(key, value, origin or "default") for key, (value, origin) in found.told.items()]
    for variable in SECRETS.values():
        rows.append((variable, "(set)", "environment") if os.environ.get(variable) else (variable, "(not set)", ""))
    wide = [max(len(row[column] or "-") for row in rows) for column in (0, 1)]
    for key, value, origin in rows:
        print(f"{key:{wide[0]}}  {value or '-':{wide[1]}}  {origin}".rstrip())
    return 0
