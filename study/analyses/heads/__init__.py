"""The exact effect of every attention head."""
