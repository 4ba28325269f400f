"""Known results of the literature, measured again on real checkpoints with our own functions: one module each."""
