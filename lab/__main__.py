"""`python -m lab`: the lab's own command line, for installations and tests without the rest of calico-why."""

from __future__ import annotations

import argparse
import sys

from lab import command


def main() -> int:
    parser = argparse.ArgumentParser(prog="lab", description=command.HELP)
    command.add_arguments(parser)
    return command.run(parser.parse_args())


sys.exit(main())
