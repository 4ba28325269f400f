"""What an activation oracle reads."""
