"""Directions, orthogonalization and dose curves."""
