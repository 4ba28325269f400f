"""A study in YAML: frozen, validated sections; an unknown key is an error with the nearest known one and its line."""

from study.config.read import parse_study, read_study
from study.config.sections import Study
from study.config.write import resolved_yaml

__all__ = ["Study", "parse_study", "read_study", "resolved_yaml"]
