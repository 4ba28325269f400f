"""Tasks: examples from data. A task is a module or object named by import path, so there is no registry."""

from interp.tasks.protocol import Task, load_task
from interp.tasks.records import read_examples

__all__ = ["Task", "load_task", "read_examples"]
