"""The style sheet of a page, in two themes, and what its browser may run."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from study.figures.style import tokens

ROLES = ("engaged", "heuristic", "heuristic_text", "base", "control", "null", "ink", "ink2", "grid", "faint", "paper",
         "alert")  # fmt: skip
"""Roles of the palette that a page uses, each as a CSS variable of its name."""


def css() -> str:
    """The style sheet: the palette of `tokens.json` in both themes, then `page.css`."""
    dark = f"{css_variables('dark')};{_asset('dark.css').strip()}"
    themes = (
        f":root{{{css_variables('light')}}}\n",
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}\n",
        f"@media screen{{:root[data-theme=dark]{{{dark}}}}}\n",
    )
    base, rest = _asset("page.css").split("\n", 1)
    return themes[0] + base + "\n" + themes[1] + themes[2] + rest


def css_variables(theme: str) -> str:
    """The palette of a theme as CSS declarations, from `tokens.json`."""
    return ";".join(f"--{role.replace('_', '-')}:{tokens()[theme][role].lower()}" for role in ROLES)


def policy(script: str) -> str:
    """Content security policy of a page: no network, and this script alone."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return files("study.pages").joinpath(name).read_text(encoding="utf-8")
