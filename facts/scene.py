"""What a bot asks a node's probe to keep of the scene of a fault, and what comes back; without it the evidence would be
gone by the time somebody reads it."""

from __future__ import annotations

import msgspec

# Bounds of one scene of one node, whoever asks.
SCENE_SECONDS = 60.0
SCENE_BYTES = 48 << 20


class SceneAsk(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST /v1/scene: everything about this node's networking that can be read.

    Answer: one JSON line for each SceneItem, SceneEnd last. It ends early when the asker hangs up.
    """

    node: str


class SceneItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag=str.lower):
    """One line of the answer."""


class ScenePart(SceneItem, frozen=True, kw_only=True):
    """The next part of a file; its parts come in order, those of other files may come between."""

    path: str  # such as "ip-route.txt"
    content: bytes


class SceneMissing(SceneItem, frozen=True, kw_only=True):
    """What is not in it, or not all of it."""

    path: str
    reason: str


class SceneEnd(SceneItem, frozen=True, kw_only=True):
    """All that was asked for was read, or is named as missing."""

    size: int  # bytes of all parts


SceneLine = ScenePart | SceneMissing | SceneEnd
