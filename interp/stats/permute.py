"""Permuted labels that respect groups: the null of every analysis that fits something to labels."""

from __future__ import annotations

import numpy as np

from interp.remedy import remedy
from interp.stats._check import GroupCodes, Groups, Seed, Values, choice, generator, group_codes

SCHEMES = ("group", "within", "between")


def permute_labels(labels: Values, *, groups: Groups, n_permutations: int, seed: Seed, scheme: str) -> np.ndarray:
    """Relabellings [permutation, example] under which the labels carry no information, given the groups.

        group    labels are constant inside a group: the group labels are permuted among groups;
        within   labels vary inside a group: permuted inside each group (tests signal beyond the group; with
                 groups = strata it is a stratified permutation);
        between  the whole label vectors of groups of equal size are exchanged (row order inside a group counts)

    groups=None permutes rows freely. Repeat the full pipeline, selection included, on each row, then read p
    from `permutation_p` or `max_null_p`. Permuting rows freely although labels belong to groups makes a
    group effect look like signal.

    Raises:
        ValueError: lengths differ, one group, scheme "group" with labels that vary inside a group, "within" with
            labels constant in every group, "between" with no two groups of equal size.
    Source: Good, *Permutation Tests* (2000); Winkler et al., NeuroImage 123 (2015) 253 (exchangeability blocks).
    """
    choice("scheme", scheme, SCHEMES)
    labels, rng = np.asarray(labels), generator(seed)
    if labels.ndim != 1 or len(labels) < 2:
        raise ValueError(f"labels: expected one label for each of at least 2 examples, got shape {labels.shape}.")
    if groups is None:
        return np.stack([rng.permutation(labels) for _ in range(n_permutations)])
    codes = group_codes(groups, len(labels), at_least=1 if scheme == "within" else 2)
    members = np.split(np.argsort(codes.code, kind="stable"), np.cumsum(codes.sizes[:-1]).astype(int))
    draw = {"group": _group_labels, "within": _within_groups, "between": _between_groups}[scheme]
    return draw(labels, codes, members, n_permutations, rng)


def _is_constant(labels: np.ndarray, members: list[np.ndarray]) -> np.ndarray:
    return np.array([(labels[rows] == labels[rows[0]]).all() for rows in members])


def _group_labels(
    labels: np.ndarray, codes: GroupCodes, members: list[np.ndarray], n: int, rng: np.random.Generator
) -> np.ndarray:
    constant = _is_constant(labels, members)
    if not constant.all():
        raise ValueError(
            f"scheme 'group': expected one label per group, {(~constant).sum()} of {codes.n_groups} groups have "
            "several. " + remedy("Use {probes.scheme:within} (signal beyond the group) or between.")
        )
    group_label = labels[[rows[0] for rows in members]]
    return np.stack([rng.permutation(group_label)[codes.code] for _ in range(n)])


def _within_groups(
    labels: np.ndarray, codes: GroupCodes, members: list[np.ndarray], n: int, rng: np.random.Generator
) -> np.ndarray:
    if _is_constant(labels, members).all():
        raise ValueError(
            f"scheme 'within': the label is constant inside each of the {codes.n_groups} groups, so nothing would "
            "move. " + remedy("Use {probes.scheme:group}.")
        )
    order = np.argsort(codes.code, kind="stable")
    out = np.empty((n, len(labels)), dtype=labels.dtype)
    for i in range(n):
        out[i, order] = labels[np.lexsort((rng.random(len(labels)), codes.code))]
    return out


def _between_groups(
    labels: np.ndarray, codes: GroupCodes, members: list[np.ndarray], n: int, rng: np.random.Generator
) -> np.ndarray:
    sizes = codes.sizes.astype(int)
    blocks = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    if all(len(block) < 2 for block in blocks):
        raise ValueError(
            f"scheme 'between': no two of the {codes.n_groups} groups have the same size (sizes {sizes.min()}-"
            f"{sizes.max()}), so nothing would move. "
            + remedy("Cap the rows per group, or use {probes.scheme:within}.")
        )
    out = np.empty((n, len(labels)), dtype=labels.dtype)
    for i in range(n):
        for block in blocks:
            for target, source in zip(block, rng.permutation(block), strict=True):
                out[i, members[target]] = labels[members[source]]
    return out
