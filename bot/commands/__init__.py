"""One word of the product a file, the same for Slack and the terminal."""
