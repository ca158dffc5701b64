"""What facts mean: pure, no socket, no clock; without it there is evidence and no answer."""
