"""What is not taken of YAML that people write; without it of a key that is written twice the last one would count in
silence, and a few lines of aliases could stand for gigabytes."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import BaseConstructor


class Strict(Composer, BaseConstructor):
    """To stand before a loader of PyYAML's: it refuses a key that is written twice, and an alias, with
    yaml.MarkedYAMLError."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # type: ignore[attr-defined]  # the loader's parser
            event = self.peek_event()  # type: ignore[attr-defined]
            raise yaml.MarkedYAMLError(None, None, "aliases are not taken", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(None, None, f"{key.value} is written twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=True)
