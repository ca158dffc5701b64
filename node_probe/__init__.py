"""Looks at one node and leaves it as it was; without it the bot would guess from the API alone."""
