"""The failure modes, one a file: the runbook's decision tree as rules."""
