"""Diptych beside its peers: the same input, in the same process, outputs compared before anything is timed."""
