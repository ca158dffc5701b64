"""The closed list of fixes, one a file."""
