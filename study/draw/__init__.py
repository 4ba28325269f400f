"""Every figure that the tables of a run allow; no model, no file but the tables."""

from study.draw.run import figures_of_run

__all__ = ["figures_of_run"]
