"""`get` and the words that have Calico's resources written, a part each."""
