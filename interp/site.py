"""A place in the network, with one string form: `resid_post.20`, `z.19.17`, `logits`. Names as in TransformerLens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, Protocol, runtime_checkable

HeadKind = Literal["query", "kv", None]
_PATTERN = ("*", "?", "[", ":")
_HEAD_NAME = re.compile(r"L=?\d+\W*H=?\d+", re.IGNORECASE)


class SiteKind(NamedTuple):
    """One row of the site table: what the word means and which indices it takes."""

    per_layer: bool
    heads: HeadKind
    shape: str
    meaning: str


SITE_KINDS: dict[str, SiteKind] = {
    "embed": SiteKind(False, None, "d_model", "output of the token embedding"),
    "resid_pre": SiteKind(True, None, "d_model", "residual stream entering a block"),
    "resid_mid": SiteKind(True, None, "d_model", "residual stream between attention and MLP"),
    "resid_post": SiteKind(True, None, "d_model", "residual stream leaving a block, before any final norm"),
    "attn_out": SiteKind(True, None, "d_model", "output of the attention module (after o_proj, before any post-norm)"),
    "mlp_out": SiteKind(True, None, "d_model", "output of the MLP module (before any post-norm)"),
    "z": SiteKind(True, "query", "head d_head", "input of o_proj by head (post-gate in gated attention)"),
    "q": SiteKind(True, "query", "head d_head", "query projection, before any per-head norm and before RoPE"),
    "k": SiteKind(True, "kv", "kv_head d_head", "key projection, before any per-head norm and before RoPE"),
    "v": SiteKind(True, "kv", "kv_head d_head", "value projection"),
    "pattern": SiteKind(True, "query", "head pos_k", "attention probabilities; needs eager attention"),
    "logits": SiteKind(False, None, "vocab", "output of the unembedding, any soft-capping included"),
}


@runtime_checkable
class LayerHeads(Protocol):
    """What `expand_sites` needs of a layer (`interp.family.Layer` has it)."""

    @property
    def kind(self) -> str: ...
    @property
    def n_heads(self) -> int: ...
    @property
    def n_kv_heads(self) -> int: ...


@runtime_checkable
class LayerTable(Protocol):
    """What `expand_sites` needs of a model (`interp.family.Layout` has it)."""

    @property
    def layers(self) -> Sequence[LayerHeads]: ...
    def has(self, kind: str, layer: int) -> bool: ...


@dataclass(frozen=True)
class Site:
    """One activation: a kind of the table `SITE_KINDS`, a 0-based layer, and for head sites optionally one head.

    `Site("z", 19, 17)` is head 17 of layer 19; `Site("z", 19)` is all heads of layer 19.

    Raises:
        ValueError: unknown kind, or an index that this kind does not take.
    """

    kind: str
    layer: int | None = None
    head: int | None = None

    def __post_init__(self) -> None:
        row = SITE_KINDS.get(self.kind)
        if row is None:
            near = get_close_matches(self.kind, SITE_KINDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"site kind {self.kind!r} is unknown; known kinds: {', '.join(SITE_KINDS)}.{hint}")
        if row.per_layer and self.layer is None:
            raise ValueError(f"site {self.kind!r} needs a layer, as in '{self.kind}.0'.")
        if not row.per_layer and self.layer is not None:
            raise ValueError(f"site {self.kind!r} has no layers; write {self.kind!r}, not '{self.kind}.{self.layer}'.")
        if self.head is not None and row.heads is None:
            raise ValueError(f"site {self.kind!r} has no heads; write '{self.kind}.{self.layer}'.")
        if (self.layer or 0) < 0 or (self.head or 0) < 0:
            raise ValueError(f"site {self}: layers and heads are counted from 0, negative numbers are not sites.")

    def __str__(self) -> str:
        return ".".join(str(part) for part in (self.kind, self.layer, self.head) if part is not None)

    @classmethod
    def parse(cls, text: str, *, base: Literal[0, 1] = 0) -> Site:
        """The site that `text` names.

        Forms: `resid_post.20`, `z.19.17`, `L19.H17`, `L19H17`, `19.17`, `L=19 H=17`, `embed`, `logits`.
        The forms without a kind name a head and mean `z`.

        Args:
            base: number of the first layer and head in `text`; published head names are sometimes 1-based.
        Raises:
            ValueError: the text is not a site; the error lists the forms.

        Example:
            >>> Site.parse("L19.H17")
            Site(kind='z', layer=19, head=17)
        """
        kind, layer, head = _split(text.strip())
        if base == 1:
            if layer == 0 or head == 0:
                raise ValueError(f"site {text!r} has an index 0, but base=1 says that counting starts at 1.")
            layer = None if layer is None else layer - 1
            head = None if head is None else head - 1
        return cls(kind, layer, head)


_HEAD_FORMS = (
    re.compile(r"[lL]\s*=?\s*(\d+)\s*[.,]?\s*[hH]\s*=?\s*(\d+)"),
    re.compile(r"(\d+)\.(\d+)"),
)
_SITE_FORM = re.compile(r"([a-z_]+)(?:\.(\d+))?(?:\.(\d+))?")


def _split(text: str) -> tuple[str, int | None, int | None]:
    for form in _HEAD_FORMS:
        if match := form.fullmatch(text):
            return "z", int(match[1]), int(match[2])
    if match := _SITE_FORM.fullmatch(text):
        layer, head = (None if group is None else int(group) for group in match.groups()[1:])
        return match[1], layer, head
    raise ValueError(
        f"{text!r} is not a site. Expected a kind with its indices, such as 'resid_post.20' or 'z.19.17', "
        f"or a head such as 'L19.H17'. Kinds: {', '.join(SITE_KINDS)}."
    )


def as_site(site: str | Site) -> Site:
    """The site itself, or the one that a string names."""
    return site if isinstance(site, Site) else Site.parse(site)


def layer_of(site: str) -> int | None:
    """Layer in a site's name; None without one, and for names that are not sites (a surface probe, a plain array).

    Example:
        >>> layer_of("resid_post.20"), layer_of("embed"), layer_of("surface")
        (20, None, None)
    """
    try:
        return Site.parse(site).layer
    except ValueError:
        return None


def kind_of_site(site: str) -> str:
    """What a site's name says before its layer: `resid_post` of `resid_post.20`."""
    return site.partition(".")[0]


def by_depth(site: str) -> tuple[str, int]:
    """Sort key of names of sites: by kind, then by layer.

    Example:
        >>> sorted(["resid_post.10", "embed", "resid_post.2"], key=by_depth)
        ['embed', 'resid_post.2', 'resid_post.10']
    """
    layer = layer_of(site)
    return kind_of_site(site), -1 if layer is None else layer


def expand_sites(patterns: str | Site | Sequence[str | Site], table: LayerTable) -> tuple[Site, ...]:
    """The sites that the patterns name on a given model, without repeats, in the order of the patterns.

    A pattern is a site, a glob over layers (`resid_post.*`, `resid_post.2?`: every such layer that has the site), a
    slice with Python's meaning (`resid_post.8:24:4`), or a glob over heads (`z.19.*`). A string may hold several,
    separated by commas. `match_sites` applies the same patterns to sites that are already known.

    Raises:
        ValueError: a layer or head outside the model, a kind that a named layer does not have, or an empty selection.
    """
    words: list[str | Site] = []
    for pattern in [patterns] if isinstance(patterns, str | Site) else patterns:
        words.extend([w.strip() for w in pattern.split(",") if w.strip()] if isinstance(pattern, str) else [pattern])
    if not words:
        raise ValueError("no sites were named; expected at least one, such as 'resid_post.*'.")
    sites: dict[Site, None] = {}
    for word in words:
        sites.update(dict.fromkeys(_expand_one(word, table)))
    return tuple(sites)


def _expand_one(word: str | Site, table: LayerTable) -> Iterable[Site]:
    if isinstance(word, Site) or not any(sign in word for sign in _PATTERN):
        site = word if isinstance(word, Site) else Site.parse(word)
        check_site(site, table)
        return [site]
    kind, layer_part, head_part = (*word.split("."), None, None)[:3]
    if kind not in SITE_KINDS or layer_part is None or not SITE_KINDS[kind].per_layer:
        raise ValueError(f"{word!r} is not a site pattern. Expected one such as 'resid_post.*', 'z.8:24:4' or 'z.3.*'.")
    layers = [layer for layer in _range(layer_part, len(table.layers), word) if table.has(kind, layer)]
    sites = [Site(kind, layer, head) for layer in layers for head in _heads(kind, layer, head_part, table, word)]
    for site in sites:
        check_site(site, table)
    if not sites:
        raise ValueError(f"{word!r} selects nothing: the model has layers {format_ranges(range(len(table.layers)))}.")
    return sites


def _heads(kind: str, layer: int, part: str | None, table: LayerTable, word: str) -> Sequence[int | None]:
    return [None] if part is None else list(_range(part, n_heads(kind, table.layers[layer]), word))


def match_sites(patterns: str | Sequence[str | Site], available: Sequence[str]) -> list[str]:
    """The available sites that match the patterns, in their own order.

    Patterns are those of `expand_sites`, and globs over whole names (`*`, `*.3`). A slice counts layers up to the last
    available one.

    Raises:
        ValueError: no pattern, or no site that matches.

    Example:
        >>> match_sites("resid_post.1:", ["resid_post.0", "resid_post.1", "resid_post.2", "z.1"])
        ['resid_post.1', 'resid_post.2']
    """
    words = [word.strip() for word in _joined(patterns).split(",") if word.strip()]
    chosen = [site for site in available if any(_is_named(site, word, available) for word in words)]
    if not chosen:
        raise ValueError(f"sites {patterns!r} match none of the available sites: {', '.join(available)}.")
    return chosen


def _joined(patterns: str | Sequence[str | Site]) -> str:
    return patterns if isinstance(patterns, str) else ",".join(map(str, patterns))


def _is_named(site: str, word: str, available: Sequence[str]) -> bool:
    if fnmatchcase(site, word):
        return True
    if not any(sign in word for sign in _PATTERN):
        return _HEAD_NAME.match(word) is not None and site == str(Site.parse(word))
    parts, patterns = site.split("."), word.split(".")
    if len(parts) != len(patterns) or ":" not in word or not fnmatchcase(parts[0], patterns[0]):
        return False
    parts_of_all = [other.split(".") for other in available]
    return all(
        int(part) in _range(want, 1 + max(int(other[at]) for other in parts_of_all if len(other) > at), word)
        for at, (part, want) in enumerate(zip(parts[1:], patterns[1:], strict=True), start=1)
    )


def _range(part: str, n: int, word: str) -> Sequence[int]:
    if any(sign in part for sign in "*?["):
        return [index for index in range(n) if fnmatchcase(str(index), part)]
    pieces = part.split(":")
    if len(pieces) > 3 or not all(re.fullmatch(r"\d*", piece) for piece in pieces):
        raise ValueError(f"{word!r}: {part!r} is neither a number, '*', nor a slice such as '8:24:4'.")
    if len(pieces) == 1:
        return [int(part)]
    return range(n)[slice(*(int(piece) if piece else None for piece in pieces))]


def n_heads(kind: str, layer: LayerHeads) -> int:
    """How many heads the kind has in a layer: query heads, or key-value heads for `k` and `v`."""
    return layer.n_kv_heads if SITE_KINDS[kind].heads == "kv" else layer.n_heads


def check_site(site: Site, table: LayerTable) -> None:
    """Raise a ValueError unless the model has this layer, the layer this kind, and the kind this head."""
    if site.layer is None:
        return
    if site.layer >= len(table.layers):
        with_kind = [i for i in range(len(table.layers)) if table.has(site.kind, i)]
        raise ValueError(
            f"site '{site}': the model has {len(table.layers)} layers (0-{len(table.layers) - 1}). "
            f"Layers with {site.kind!r}: {format_ranges(with_kind)}."
        )
    layer = table.layers[site.layer]
    if not table.has(site.kind, site.layer):
        with_kind = [i for i in range(len(table.layers)) if table.has(site.kind, i)]
        raise ValueError(
            f"site '{site}': layer {site.layer} is of kind {layer.kind!r} and has no {site.kind!r}. "
            f"Layers with {site.kind!r}: {format_ranges(with_kind) or 'none'}."
        )
    if site.head is not None and site.head >= (n := n_heads(site.kind, layer)):
        sort = "key-value heads" if SITE_KINDS[site.kind].heads == "kv" else "heads"
        raise ValueError(f"site '{site}': layer {site.layer} has {n} {sort} (0-{n - 1}).")


def layer_index(word: int | str, n_layers: int) -> int:
    """Block index of a layer given as index or percent of depth.

        int(n_layers * (percent / 100))              as published oracles were trained

    Raises:
        ValueError: not a layer of the model; 100 % would be one past the last block.
    """
    index = word if isinstance(word, int) else int(n_layers * (percent_of(word) / 100))
    if not 0 <= index < n_layers:
        raise ValueError(f"layer {word!r}: the model has blocks 0-{n_layers - 1}; percents run from 0% to 99%.")
    return index


def percent_of(word: int | str) -> int | float:
    """The number of a percent of depth such as "50%"; a block index as it is.

    Raises:
        ValueError: a text that is no percent from 0% to below 100%.
    """
    if isinstance(word, int):
        return word
    number = word.removesuffix("%")
    if not word.endswith("%") or not number.replace(".", "", 1).isdecimal() or not float(number) < 100:
        raise ValueError(f"layer {word!r}: expected a block index or a percent of depth from '0%' to '99%'.")
    return int(number) if number.isdecimal() else float(number)


def format_ranges(numbers: Iterable[int]) -> str:
    """Integers as a person writes them: `[0, 1, 2, 7]` -> `'0-2, 7'`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
