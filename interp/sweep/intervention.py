"""What is changed in one row of a sweep, and where in the network the row first differs from the clean run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from interp.edits import Edit
from interp.family import Layout
from interp.passes import Pass
from interp.positions import Positions
from interp.prompt import Prompt
from interp.site import Site, expand_sites

Tokens = Literal["all"] | Positions | Sequence[int]
Stage = tuple[int, int]  # (layer, 0: where the block is entered | 1: where attention hands its heads to the projection)

_AT_ENTRY = ("embed", "resid_pre", "q", "k", "v")
_AFTER_HEADS = ("z", "attn_out", "resid_mid", "mlp_out")


@dataclass(frozen=True, eq=False)
class Change:
    """One edit of one site at chosen tokens; the same meaning as `edit(model, {site: edit}, positions=[positions])`.

    Args:
        site: a site, or a glob that stands for each of its sites.
        edit: a pure function of the activation. `Add` and `Replace` take a tensor that broadcasts to acts[1, pos, ...]
            of the whole prompt, as in `edit`; an edit of your own must treat every row and token alike.
        positions: "all", a rule, or token numbers.
    """

    site: str | Site
    edit: Edit
    positions: Tokens = "all"


@dataclass(frozen=True, eq=False)
class Intervention:
    """One row of a sweep: changes that act together in one run of the prompt. Without changes it is the clean run."""

    changes: tuple[Change, ...] = ()
    name: str = ""

    @classmethod
    def at(cls, site: str | Site, edit: Edit, positions: Tokens = "all", *, name: str = "") -> Intervention:
        """An intervention of a single change."""
        return cls((Change(site, edit, positions),), name)


@dataclass(frozen=True, eq=False)
class Op:
    """A change of one concrete site at concrete tokens."""

    site: Site
    edit: Edit
    tokens: tuple[int, ...]

    @property
    def stage(self) -> Stage:
        """Where a row that is changed here leaves the clean run; what leaves a block enters the next one."""
        layer = self.site.layer or 0
        if self.site.kind == "resid_post":
            return (layer + 1, 0)
        return (layer, 0 if self.site.kind in _AT_ENTRY else 1)


@dataclass(frozen=True, eq=False)
class Row:
    """One intervention on a given prompt: its operations, and the stage at which the row joins the batch."""

    index: int
    ops: tuple[Op, ...]
    join: Stage


class Planner:
    """Turns interventions into rows for one prompt of one model.

    Raises:
        ValueError: a site that the model does not have or that cannot be changed, or a token outside the prompt.
    """

    def __init__(self, layout: Layout, prompt: Prompt | Sequence[int]) -> None:
        self.layout, self.prompt = layout, prompt
        self.n_tokens = len(prompt.ids if isinstance(prompt, Prompt) else prompt)
        self._sites: dict[str | Site, tuple[Site, ...]] = {}
        self._tokens: dict[Tokens, tuple[int, ...]] = {}

    def rows(self, interventions: Sequence[Intervention]) -> list[Row]:
        return [self._row(index, one) for index, one in enumerate(interventions)]

    def _row(self, index: int, one: Intervention) -> Row:
        ops = tuple(
            Op(site, change.edit, tokens)
            for change in one.changes
            if (tokens := self.tokens(change.positions))
            for site in self._expand(change.site)
        )
        return Row(index, ops, min((op.stage for op in ops), default=(self.layout.n_layers, 0)))

    def _expand(self, word: str | Site) -> tuple[Site, ...]:
        if word not in self._sites:
            sites = expand_sites(word, self.layout)
            for site in sites:
                if site.kind not in (*_AT_ENTRY, *_AFTER_HEADS, "resid_post"):
                    raise ValueError(
                        f"site '{site}' cannot be changed in a sweep. Sites that can: "
                        f"{', '.join((*_AT_ENTRY, *_AFTER_HEADS, 'resid_post'))}."
                    )
            self._sites[word] = sites
        return self._sites[word]

    def tokens(self, where: Tokens) -> tuple[int, ...]:
        """Token numbers in ascending order, each once."""
        key = tuple(where) if isinstance(where, Sequence) and not isinstance(where, str) else where
        if key not in self._tokens:
            self._tokens[key] = self._resolve(key)
        return self._tokens[key]

    def _resolve(self, where: Tokens) -> tuple[int, ...]:
        if where == "all":
            return tuple(range(self.n_tokens))
        if isinstance(where, Positions):
            if isinstance(self.prompt, Prompt):
                return tuple(sorted(set(where.resolve(self.prompt))))
            return tuple(sorted(set(Pass(1, self.n_tokens).tokens(where)[0])))
        outside = [token for token in where if not 0 <= token < self.n_tokens]
        if outside:
            raise ValueError(f"position {outside[0]}: the prompt has tokens 0-{self.n_tokens - 1}.")
        return tuple(sorted(set(where)))
