"""What may be changed, on whose word, and how; nothing else in this project writes to a cluster or a node."""
