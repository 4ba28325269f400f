"""Composition: configuration, command line, tables, figures, report. Nothing below imports this package."""
