"""Activations of every member, recorded once."""
