"""Evaluations on disk: answers batch by batch, then the tables of one member or of a pair."""
