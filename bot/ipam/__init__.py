"""What calicoctl says of addresses, reckoned from the resources in whole numbers."""
