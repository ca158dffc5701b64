"""What a node's packet filters did with packets of ours; without it a lost packet's rule could only be guessed."""
