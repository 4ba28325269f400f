"""Per-layer linear probes with their controls."""
