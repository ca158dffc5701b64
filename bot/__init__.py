"""Asks and answers: the words people type, the looks they need, the replies they read."""
