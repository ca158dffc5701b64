"""Who bot and probes are to each other: names, keys, certificates, and how they are renewed while both run."""
