"""Dose curves of a direction and its controls."""
