"""Steering studies: dose curves of a checkpoint, of both members of a pair, and their folders."""
