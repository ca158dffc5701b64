"""What a user would notice if it broke, file by file."""
