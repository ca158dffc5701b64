"""A local Slack with a page to sit in."""
