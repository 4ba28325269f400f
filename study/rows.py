"""Rows of tables, as plain dictionaries."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]
"""Column of `study.schema` -> value of one row, or a name -> JSON value of one record; what is absent is None."""
