"""What calicoctl says of nodes, asked of the probes instead of by exec."""
