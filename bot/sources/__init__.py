"""The only files of the bot that look at a cluster."""
