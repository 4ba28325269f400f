"""What both members answer, on the same items."""
