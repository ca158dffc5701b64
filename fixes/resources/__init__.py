"""Calico's resources: their names, their two forms, and what Calico itself would refuse of them; no I/O."""
