"""Step eval: what every member answers, on the same items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from interp.io.read import read_frame
from study.analyses.base import Context, Step, Work

if TYPE_CHECKING:
    import pandas as pd

    from study.config import Study

MEMBERS = ("engaged", "heuristic")
_CONTROLS = {
    "accuracy": "always answers the commonest label", "ece": "floor of a calibrated reader",
    "brier": "constant at the base rate", "auroc": "chance",
}  # fmt: skip
_READER = "reader without the skill"


def run(context: Context) -> None:
    """Answers of every member into `<member>/`; a killed run goes on."""
    from study.analyses.eval.run import answer_members
    from study.analyses.items import examples_of

    study, section = context.study, context.section
    answer_members(
        contrast(study), study.task.path, examples_of(study, section), out=context.folder, decoding=decoding_of(study),
        loading=asdict(study.load), progress=context.progress, modes=section.modes,
    )  # fmt: skip


def contrast(study: Study) -> Any:
    """The pair, without the bare bases that are not to be evaluated; or the single checkpoint."""
    from interp.checkpoint import CheckpointPair

    assert study.eval is not None
    if study.pair is None:
        return study.single
    named = study.eval.members
    bases = {key: getattr(study.pair, key) for key in ("base", "heuristic_base") if key in named}
    return CheckpointPair(study.pair.engaged, study.pair.heuristic, **bases)


def decoding_of(study: Study) -> Any:
    """How answers are drawn."""
    from interp.evaluate import Decoding

    section = study.eval
    assert section is not None
    given: dict[str, Any] = {"tokens_per_batch": section.tokens_per_batch} if section.tokens_per_batch else {}
    return Decoding(
        generate=section.generate, max_new_tokens=section.max_new_tokens, temperature=section.temperature,
        n_samples=section.samples, seed=study.seed, thinking=section.thinking,
        target_delimiter=section.target_delimiter, **given,
    )  # fmt: skip


def tables(context: Context) -> dict[str, pd.DataFrame]:
    """`eval`: estimates of each member; `pair`: both on the same items and their difference."""

    from study.analyses.eval.run import tables_of
    from study.analyses.items import examples_of
    from study.schema import tidy

    study, section, what = context.study, context.section, contrast(context.study)
    members = tuple(what.members) if study.pair else (what.name,)
    tables_of(context.folder, members, study.task.path, examples_of(study, section), seed=study.seed,
              margin=study.claim_margin, modes=section.modes)  # fmt: skip
    made = _made(context)
    rows = read_frame(context.folder / "table.csv", float_precision="round_trip", keep_default_na=False)
    out = {"eval": tidy([_member_row(row, made) for row in rows.to_dict("records")], **_same(context))}
    pairs = [
        row | {"mode": path.stem.removeprefix("pair").removeprefix("_")}
        for path in sorted(context.folder.glob("pair*.csv"))
        for row in read_frame(path, float_precision="round_trip", keep_default_na=False).to_dict("records")
    ]
    if pairs:
        data = next(iter(made.values()))["data_sha256"]
        out["pair"] = tidy([row for pair in pairs for row in _pair_rows(pair, data, made)], **_same(context))
    return out


def _same(context: Context) -> dict[str, Any]:
    return {"analysis": "eval", "seed": context.study.seed, "unit": "items"}


def _made(context: Context) -> dict[str, dict[str, Any]]:
    """Member -> columns that say what answered and what was asked."""
    from interp.io.items import PLAN
    from study.analyses.eval.store import identity_of

    found = {}
    for member in context.study.members:
        paths = sorted((context.folder / member).glob(f"**/{PLAN}"))
        if paths:
            asked = identity_of(paths[0].parent)
            found[member] = {
                **context.made_by(member), "dtype": asked["dtype"], "data_sha256": asked["items"],
            }  # fmt: skip
    return found


def _member_row(row: Mapping[Any, Any], made: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A row of `table.csv`; a count has no interval but itself."""
    out = {key: (None if row[key] == "" else row[key]) for key in row if key != "control"}
    control = None if row["control"] == "" else row["control"]
    if not out["n"]:  # a count of nothing: no reply had a label
        out |= dict.fromkeys(("value", "lo", "hi"))
    if out["value"] is not None and out["lo"] is None:
        out |= {"lo": out["value"], "hi": out["value"], "interval": out["interval"] or "exact count"}
    if out["value"] is None and not out["note"]:
        out["note"] = "undefined: no item that it could be computed from"
    out["is_degenerate"] = _is_true(row["is_degenerate"])
    words = None if control is None else _CONTROLS.get(str(row["metric"]), _READER)
    return out | dict(made.get(str(row["member"]), {})) | {"control": words, "control_value": control}


def _is_true(value: Any) -> bool:
    """A flag of a CSV file: a column with a blank in it is read as text."""
    return str(value) == "True"


def _pair_rows(pair: Mapping[Any, Any], data: str, made: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Three rows of a cell: the members, and engaged minus heuristic with its tests."""
    known = {key: (None if value == "" else value) for key, value in pair.items()}
    same = {key: known[key] for key in ("cell", "cell_role", "mode", "n", "n_groups")} | {"data_sha256": data}
    same["banner"], constant = known.get("banner"), {m: _is_true(known[f"{m}_degenerate"]) for m in MEMBERS}
    majority = {"control": _CONTROLS["accuracy"], "control_value": known["majority"], "interval": known["interval"]}
    rows = [
        {**made[member], **same, **majority, "member": member, "metric": "accuracy", "value": known[member],
         "lo": known[f"{member}_lo"], "hi": known[f"{member}_hi"], "is_degenerate": constant[member]}
        for member in MEMBERS
    ]  # fmt: skip
    names = [made[member] for member in MEMBERS]
    both = {key: " and ".join(dict.fromkeys(str(n[key]) for n in names)) for key in ("model", "adapter", "dtype")}
    note = known["note"] or ""
    if known["diff"] is None:
        note = "; ".join(filter(None, [note, known["tost_verdict"]]))
    return [*rows, {
        **same, **both, "member": " - ".join(MEMBERS), "metric": "accuracy_difference", "is_difference": True,
        "is_degenerate": any(constant.values()),
        "margin": known["margin"], "value": known["diff"],
        "lo": known["diff_lo"], "hi": known["diff_hi"], "interval": known["diff_interval"],
        "control": "no difference", "control_value": 0.0, "only_engaged": known["only_engaged"],
        "only_heuristic": known["only_heuristic"], "p": known["p_groups"], "p_items": known["p_mcnemar"],
        "p_adjusted": known["p_holm"], "correction": "Holm over cells", "verdict": known["tost_verdict"], "note": note,
    }]  # fmt: skip


def plan(study: Study) -> Work:
    """Tokens of every prompt and, at most, of every reply, over both members."""
    from study.analyses.estimate import largest_of, prompt_tokens
    from study.analyses.items import examples_of

    section = study.eval
    assert section is not None
    items = examples_of(study, section)
    limit = (section.max_new_tokens or _longest(study)) if section.generate else 0
    n_modes = max(1, len(section.modes))
    what = contrast(study)
    members = list(what.members.values()) if study.pair else [what]
    tokens = sum(prompt_tokens(study, member, items) for member in members) * n_modes * section.samples
    asked = len(items) * len(members) * n_modes * section.samples
    return Work(asked, tokens, asked * limit, 400 * asked, largest_of(study, members))


def _longest(study: Study) -> int:
    from interp.tasks.protocol import load_task, max_new_tokens

    return max_new_tokens(load_task(study.task.path))


def check(study: Study) -> None:
    """What would only be found once a model is loaded."""
    from interp.tasks.protocol import load_task

    task: Any = load_task(study.task.path)
    missing = [name for name in ("examples", "parse", "score") if not callable(getattr(task, name, None))]
    assert study.eval is not None
    if study.pair:
        known = [*MEMBERS, *(key for key in ("base", "heuristic_base") if getattr(study.pair, key))]
        strange = [name for name in study.eval.members if name not in known] or [
            name for name in MEMBERS if name not in study.eval.members
        ]
        if strange:
            raise ValueError(f"eval.members: {', '.join(strange)}: expected both members of the pair, and of {known}.")
    if missing:
        raise ValueError(f"task.path: {study.task.path!r} cannot be evaluated: it has no {' and no '.join(missing)}.")


def items(study: Study) -> Any:
    """What every member is asked."""
    from study.analyses.items import examples_of

    return examples_of(study, study.eval)


STEP = Step(
    "eval", run, tables, plan=plan, check=check, uses_models=True, table_sections=("claim_margin",), items=items
)
