"""A local Slack with a page to sit in."""

from lab.slack.server import LocalSlack

__all__ = ["LocalSlack"]
