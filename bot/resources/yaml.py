"""YAML as Kubernetes reads and writes it; without it a time would become a date, and a port a number of seconds."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.loader import SafeLoader

from bot.errors import UserError
from fixes.strict_yaml import Strict

_BOOL = re.compile(r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
_INT = re.compile(r"^[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")


class _Loader(Strict, SafeLoader):
    """No dates and no base 60, as go-yaml has none."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML declares it


for _tag, _form, _first in (
    ("bool", _BOOL, "yYnNtTfFoO"),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), "~nN"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _form, [*_first, *([""] if _tag == "null" else [])])


class _Dumper(yaml.SafeDumper):
    """Text of several lines stays that, and nothing is written by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def documents(text: str) -> list[Any]:
    """Every document of YAML or JSON that is not empty. Raises UserError with the line that is wrong."""
    try:
        return [one for one in yaml.load_all(text, _Loader) if one is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        line = text.splitlines()[mark.line].strip()[:80] if mark and mark.line < len(text.splitlines()) else ""
        shown = f" ({line!r})" if line else ""
        raise UserError(f"This is not YAML: {where}{error.problem or error.context}{shown}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"This is not YAML: {str(error).splitlines()[0]}.") from error


def write(value: Any) -> str:
    """As kubectl and calicoctl print it: keys in the order of the alphabet."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=1 << 30)
