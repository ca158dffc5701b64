"""What may be changed, on whose word, and how; without it an answer would end at advice."""
