"""Procedural compliance: does a scenario follow a procedure? Generated instances, an engine, user data."""
