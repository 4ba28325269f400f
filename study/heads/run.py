"""Sweep the heads of one checkpoint, or of both members of a pair, into a folder that can be resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.heads import HeadEffects, HeadSweep, TokenPair, contrast, cumulative_ablation, parse_kind
from interp.heads.estimates import halves
from interp.heads.ids import expand_heads, parse_unit, unit_name
from interp.heads.order_swaps import FLIP, KEEP, swap_metrics
from interp.heads.sweep import unit_norms
from interp.model import Model
from interp.positions import parse_positions
from interp.prompt import Example
from interp.tasks.protocol import load_task
from study.heads.pairs import OWN, has_twins, pairs_of_examples, pairs_of_twins
from study.heads.store import HeadsFolder
from study.members import models_of

if TYPE_CHECKING:
    import pandas as pd

KS = (0, 1, 2, 4, 8, 16, 32)
FIRST_VERIFY = 0.01
MIN_SOLVED = 8


@dataclass(frozen=True)
class HeadStudy:
    """What is swept.

    Attributes:
        kinds: names as `interp.heads.parse_kind` reads them.
        slot: what stands before the label: "own", the model's own reply up to its decision, or a forced text.
        named: heads of a hypothesis, named before the sweep.
        effect: "total" or "direct".
        verify: share of rows of every pair that hooked passes recompute; of the first pair never less than 1 %.
    """

    kinds: tuple[str, ...] = ("mean", "zero", "patch")
    positions: str = "answer"
    slot: str = OWN
    named: tuple[str, ...] = ()
    effect: Literal["total", "direct"] = "total"
    verify: float = 0.0
    seed: int = 0


def run_heads(
    what: Checkpoint | CheckpointPair,
    task_path: str,
    examples: Sequence[Example] | Sequence[tuple[Example, Example]],
    *,
    out: Path,
    study: HeadStudy,
    loading: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, dict[str, HeadEffects]]:
    """Effects of every member under every kind: `out/<member>/<kind>/`, `out/table.csv`, `out/cumulative.csv`.

    Run again with the same arguments, it continues where it stopped: what is done is not computed again.

    Args:
        examples: examples of the task, or (original, twin) pairs of them, which patching needs.
    For a pair of one architecture also `out/difference.csv`: engaged minus heuristic, head by head.

    Returns:
        member -> kind -> effects.
    Raises:
        ValueError: patching without twins, a head that does not exist, a folder of another sweep.
    """
    import pandas as pd

    task: Any = load_task(task_path)
    found: dict[str, dict[str, HeadEffects]] = {}
    swaps, curves = [], []
    for roles, model in models_of(what, dict(loading or {})):
        for role in roles:
            with model.member(role):
                pairs = _pairs(model, task, examples, study)
                found[role] = {
                    k: _sweep(model, pairs, k, out / role / _folder(k), study, progress) for k in study.kinds
                }
                curves.append(_cumulative(model, found[role], study).assign(member=role))
            if "patch" in found[role] and {pair.flips for pair in pairs} == {True, False}:
                swaps.append(swap_metrics(found[role]["patch"]).assign(member=role))
    table(found, study).to_csv(out / "table.csv", index=False)
    pd.concat(curves).to_csv(out / "cumulative.csv", index=False)
    if differences := [contrast(*both).assign(kind=kind) for kind, both in _aligned(found)]:
        pd.concat(differences).to_csv(out / "difference.csv", index=False)
    if swaps:
        pd.concat(swaps).to_csv(out / "order_swap.csv", index=False)
    return found


def _aligned(found: Mapping[str, Mapping[str, HeadEffects]]) -> list[tuple[str, tuple[HeadEffects, HeadEffects]]]:
    """(kind, sweeps of both members) where their heads correspond one for one."""
    if not {"engaged", "heuristic"} <= set(found):
        return []
    both = [(kind, (sweep, found["heuristic"][kind])) for kind, sweep in found["engaged"].items()]
    return [(kind, (a, b)) for kind, (a, b) in both if a.plan.units == b.plan.units]


def _pairs(model: Model, task: Any, examples: Any, study: HeadStudy) -> list[TokenPair]:
    if examples and not isinstance(examples[0], Example):
        return pairs_of_twins(model, task, examples, study.slot)
    if any(kind.startswith("patch") or kind == "resample:twin" for kind in study.kinds):
        what = "makes twins, but single examples came" if has_twins(task) else "has no twin_examples(n, ...)"
        raise ValueError(f"kind patch needs pairs of prompts; this task {what}. Use --kind mean,zero.")
    return pairs_of_examples(model, task, examples, study.slot)


def _folder(kind: str) -> str:
    return kind.replace(":", "_")


def _sweep(
    model: Model, pairs: list[TokenPair], kind: str, root: Path, study: HeadStudy, progress: bool
) -> HeadEffects:
    """One kind on one member, from disk where it is done."""
    from tqdm import tqdm

    where = parse_positions(study.positions)[0]
    job = HeadSweep(model, pairs, parse_kind(kind), where, effect=study.effect, verify=study.verify)
    boxed = expand_heads([parse_unit(name) for name in study.named], model.layout) if study.named else ()
    folder = HeadsFolder(root)
    with folder.open(job.plan, pairs):
        done = folder.done
        job.verify = max(study.verify, FIRST_VERIFY)
        with tqdm(total=len(pairs), initial=len(done), unit="pair", desc=f"{root.parent.name} {kind}",
                  disable=not progress) as bar:  # fmt: skip
            for _, outcome in job.run(done=done):
                folder.put(outcome)
                job.verify = study.verify
                bar.update()
        folder.put_norms(unit_norms(model, pairs, job.units), [unit_name(unit) for unit in boxed])
    return folder.effects(seed=study.seed)


def _cumulative(model: Model, found: Mapping[str, HeadEffects], study: HeadStudy) -> pd.DataFrame:
    """Heads ranked on one half of the pairs under the first ablation, removed together on the other half.

    On the pairs that the model solves, where `split_kinds` has these; the others cannot get worse.
    """
    kind = next((name for name in study.kinds if found[name].main == "abl_logit"), study.kinds[0])
    effects = found[kind].solved() if _is_enough(found[kind]) else found[kind]
    chosen = halves(effects.groups, seed=study.seed)
    means = effects.subset(chosen).per_example().mean(axis=0)
    ranking = [effects.units[index][0] for index in (-means).argsort(kind="stable")]
    report = [pair for pair, first in zip(effects.pairs, chosen, strict=True) if not first]
    ks = [k for k in KS if k <= len(ranking) // 2]
    return cumulative_ablation(model, report, ranking, ks=ks, kind=parse_kind(kind), seed=study.seed,
                               positions=parse_positions(study.positions)[0])  # fmt: skip


def table(found: Mapping[str, Mapping[str, HeadEffects]], study: HeadStudy) -> pd.DataFrame:
    """One row per member, kind, head and definition; flip pairs alone for patching, with the keep pairs as placebo."""
    import pandas as pd

    parts = []
    for role, kinds in found.items():
        for effects in kinds.values():
            split = split_kinds(effects)
            parts += [part.table(keep=keep_of(which, split)).assign(member=role, pairs=which) for which, part in split]
    return pd.concat(parts, ignore_index=True)


def keep_of(which: str, parts: Sequence[tuple[str, HeadEffects]]) -> HeadEffects | None:
    """The same-answer control of one of the `parts`: for `flip` and `flip, solved` the pairs that keep the answer."""
    sort, comma, rest = which.partition(",")
    return dict(parts).get(f"{KEEP}{comma}{rest}") if sort == FLIP else None


def split_kinds(effects: HeadEffects) -> list[tuple[str, HeadEffects]]:
    """(what pairs, effects on them): under patching, pairs that flip the answer apart from those that keep it.

    Each also on the pairs that the model solves alone, where those are at least 8 of at least 4 groups: on a wrong
    answer a head that carries it has the opposite sign.
    """
    kinds = sorted({pair.kind for pair in effects.pairs})
    parts = [("all", effects)]
    if effects.main == "cma" and len(kinds) > 1:
        parts = [(kind, effects.of_kind(kind)) for kind in kinds]
    return [*parts, *((f"{which}, solved", part.solved()) for which, part in parts if _is_enough(part))]


def _is_enough(effects: HeadEffects) -> bool:
    solved = effects.is_solved()
    groups = {group for group, kept in zip(effects.groups, solved, strict=True) if kept}
    return MIN_SOLVED <= int(solved.sum()) < len(solved) and len(groups) >= 4
