"""A Diagnosis for people and machines: terminal, Slack, JSON; pure."""
