"""Reads the workspace and app manifest a local Slack starts with; without it wrong scopes would be tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

SEED = Path(__file__).with_name("seed.yaml")
MANIFEST = Path(__file__).with_name("manifest.yaml")  # a link into deploy/, so that a wheel carries it too


class Team(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    name: str
    domain: str


class Bot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    app_id: str
    bot_id: str
    user_id: str
    name: str


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person. `team_id` is empty for the home team; another team's id makes this a Slack Connect stranger."""

    id: str
    name: str
    real_name: str = ""
    team_id: str = ""
    guest: bool = False  # a multi-channel guest of the home team


class Group(msgspec.Struct, forbid_unknown_fields=True):
    """A user group; `members` are user names in the file and user ids once loaded."""

    id: str
    handle: str
    name: str
    members: list[str]


class Channel(msgspec.Struct, forbid_unknown_fields=True):
    """A channel; `members` are user names in the file and user ids once loaded."""

    id: str
    name: str
    members: list[str]
    topic: str = ""
    private: bool = False
    has_bot: bool = False
    archived: bool = False


class Config(msgspec.Struct, forbid_unknown_fields=True):
    team: Team
    bot: Bot
    bot_token: str
    app_token: str
    signing_secret: str
    users: list[User]
    groups: list[Group]
    channels: list[Channel]
    request_url: str = ""  # deliver by signed HTTP to this URL instead of Socket Mode


class Manifest(msgspec.Struct, frozen=True):
    """What the app manifest grants."""

    commands: frozenset[str]
    scopes: frozenset[str]
    events: frozenset[str]
    interactive: bool


def load_config(path: Path = SEED) -> Config:
    """The workspace in a YAML file. Raises ValueError with one sentence when the file does not describe one."""
    try:
        config = msgspec.yaml.decode(path.read_bytes(), type=Config)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"{path} does not describe a local Slack: {error}") from error
    names = {user.name: user.id for user in config.users} | {user.id: user.id for user in config.users}
    for members in (*(group.members for group in config.groups), *(channel.members for channel in config.channels)):
        unknown = [name for name in members if name not in names]
        if unknown:
            raise ValueError(f"{path} names members who are not among its users: {', '.join(unknown)}")
        members[:] = [names[name] for name in members]
    return config


def load_manifest(path: Path = MANIFEST) -> Manifest:
    """Commands, scopes and events of a Slack app manifest. Raises ValueError with one sentence when it is none."""
    try:
        raw = msgspec.yaml.decode(path.read_bytes(), type=dict[str, Any])
        return Manifest(
            commands=frozenset(command["command"] for command in raw["features"]["slash_commands"]),
            scopes=frozenset(raw["oauth_config"]["scopes"]["bot"]),
            events=frozenset(raw["settings"]["event_subscriptions"]["bot_events"]),
            interactive=bool(raw["settings"]["interactivity"]["is_enabled"]),
        )
    except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a Slack app manifest this stand-in can read: {error!r}") from error
