"""Looks at one node and changes nothing; without it the bot would guess from the API alone."""
