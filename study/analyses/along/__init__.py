"""How well a probe separates the members' own replies, token by token."""
