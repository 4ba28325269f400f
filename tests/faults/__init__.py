"""Attacks: malformed input, full disks, interruptions; nothing is lost and every message says what to do."""
