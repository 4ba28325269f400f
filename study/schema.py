"""Tidy tables of a study: one estimate per row, every column named and documented once, checked before it is written.

runs/x/tables/<table>.parquet and .csv. `COLUMNS` is the dictionary; `KEYS` are in every table, the others where they
mean something. A row that has a value has its interval and n; a row without one says why in `note`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from interp.io import frames
from interp.io.read import read_frame
from interp.label_mass import mass_note

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

__all__ = [
    "COLUMNS", "KEYS", "TABLES", "Column", "check_table", "declare", "read_table", "read_tables", "tidy", "write_table",
]  # fmt: skip


@dataclass(frozen=True)
class Column:
    """Meaning of a column; `kind` decides how it is stored (text: blank where absent; number: NaN; flag: null)."""

    means: str
    kind: Literal["text", "number", "flag"] = "text"


def _number(means: str) -> Column:
    return Column(means, "number")


def _flag(means: str) -> Column:
    return Column(means, "flag")


def _difference(control: str, words: str) -> dict[str, Column]:
    """A paired difference from a control, with its own 95 % interval: what a claim is judged by."""
    name = f"{control}_difference"
    return {
        name: _number(f"value minus {words}, paired on the same items"),
        f"{name}_lo": _number("lower end of its 95 % interval"),
        f"{name}_hi": _number("upper end of its 95 % interval"),
    }


COLUMNS: dict[str, Column] = {
    "analysis": Column("step that produced the row: eval, heads, probes, steering, oracle, known_truth"),
    "member": Column("engaged, heuristic, base, heuristic_base, or 'engaged - heuristic' for a paired difference"),
    "model": Column("base model, by its hub id or the name of its folder"),
    "adapter": Column("adapter on the base, by its hub id or the name of its folder; 'none' for the bare base"),
    "weights": Column("first 12 digits of the SHA-256 fingerprint of base and adapter"),
    "dtype": Column("dtype in which the model computed"),
    "data_sha256": Column("digest of the items behind the row"),
    "cell": Column("part of the data (a perturbation, a BBQ category); 'all' is every item"),
    "cell_role": Column("training, adversarial, perturbed or control; blank if the task does not declare it"),
    "headline": Column("name of a score that the task puts in the table of the report's page; blank otherwise"),
    "banner": Column("text that every page with this row must show, e.g. 'Not for clinical use.'"),
    "top_answer": Column("the answer that the member gives most often"),
    "top_answer_member": Column("member whose most frequent answer it is, where the row is of another member"),
    "top_share": _number("share of the items to which the member gives this answer"),
    "is_degenerate": _flag("rests on a member that gives one answer to more than 90 % of the items, right or wrong"),
    "mode": Column("prompt mode (thinking, direct); blank if there is only one"),
    "target": Column("target of a probe or an oracle question"),
    "position": Column("position rule: which token of the prompt, e.g. last, answer, span:scenario:last"),
    "positions": Column("tokens at which heads or directions act"),
    "decision_site": Column(
        "decision of a reply that heads change or an answer is read at, e.g. label; blank for none"
    ),
    "n_reached": _number("items on which the member's reply reaches the decision site"),
    "n_asked": _number("items on which it could"),
    "site": Column("site in the network, counted from 0, e.g. resid_post.20"),
    "layer": _number("block whose output is meant, counted from 0"),
    "depth": _number("(layer + 1/2) / number of layers"),
    "head": Column("head, counted from 0, e.g. L19.H17; L1.H0+L1.H6 for heads changed together"),
    "kind": Column("kind of probe (logistic, ridge, massmean) or of change to a head (mean, zero, patch)"),
    "effect": Column("total, or direct (only the head's own path to the logits)"),
    "pairs": Column("which prompt pairs: all, flip, keep; 'solved' if only pairs that the model solves"),
    "half": Column("select: heads were ranked on these pairs; report: they were not"),
    "named": _flag("the head was named before the sweep"),
    "arm": Column("what was steered or removed together: a direction, top, lowest, random, shuffled, ..."),
    "arm_label": Column("the arm in words"),
    "toward": Column("class that positive strengths move toward"),
    "alpha": _number("strength in units of the stored direction"),
    "alpha_norm": _number("strength as a share of the mean residual norm"),
    "k": _number("number of heads removed together"),
    "draw": _number("number of the random draw, from 0"),
    "heads": Column("the heads removed together"),
    "split": Column("oof: out of fold on DEV; test: scored once on TEST"),
    "role": Column("role of a probe row: layer, control, residual, calibration"),
    "cohort": Column("part of TEST that the row covers; 'all' is all of TEST"),
    "C": _number("inverse penalty chosen on DEV"),
    "train_checkpoint": Column("checkpoint on which the probe was fitted"),
    "test_checkpoint": Column("checkpoint to which the probe was applied"),
    "train_site": Column("site at which the probe was fitted"),
    "test_site": Column("site at which the probe was applied"),
    "train_layer": _number("its layer"),
    "test_layer": _number("its layer"),
    "train_d_feature": _number("width there"),
    "test_d_feature": _number("width there"),
    "variant": Column("how a probe was transferred: raw, recenter, bias, aligned, aligned-shuffled, A->A, B->B"),
    "metric": Column("what was measured"),
    "metric_unit": Column("its unit"),
    "is_difference": _flag("the value is a difference between two members or conditions"),
    "engaged": _number("mean of the engaged member in a difference of heads"),
    "heuristic": _number("mean of the heuristic member in a difference of heads"),
    "same_input": _number("share of the items whose prompts are the same tokens in both members"),
    "value": _number("the estimate"),
    "lo": _number("lower end of its 95 % interval"),
    "hi": _number("upper end of its 95 % interval"),
    "band_lo": _number("lower end of its simultaneous 95 % interval, over everything searched (layers, cells)"),
    "band_hi": _number("upper end of that simultaneous interval"),
    "n": _number("number of items (or pairs, rows) behind the value"),
    "n_groups": _number("number of independent groups among them; blank if every item is its own group"),
    "unit": Column("what n counts"),
    "group_unit": Column("what n_groups counts"),
    "n_positive": _number("number of rows of the class that counts as 1"),
    "n_negative": _number("number of rows of the other class"),
    "groups_positive": _number("number of independent groups with a row of the class that counts as 1"),
    "groups_negative": _number("number of independent groups with a row of the other class"),
    "n_dropped": _number("number of pairs left out because the model does not solve them"),
    "interval": Column("name of the interval that was computed"),
    "control": Column("control: the other explanation that the value is compared with, in words"),
    "control_value": _number("value of the control"),
    "control_lo": _number("lower end of the control's interval"),
    "control_hi": _number("upper end of the control's interval"),
    **_difference("control", "the control"),
    **_difference("parts", "the sum of the effects of its heads, changed one by one"),
    "parts_value": _number("sum of the effects of the heads of a set, changed one by one"),
    **_difference("keep", "the size of that of twins that keep the answer"),
    **_difference("shuffled", "the mean of label-shuffled directions"),
    **_difference("text", "that of a bag of words on the same rows"),
    **_difference("floor", "`floor`"),
    **_difference("text_only", "`text_only`"),
    **_difference("probe", "`probe`"),
    "null_mean": _number("mean of the null"),
    "null_lo": _number("2.5 % point of the null"),
    "null_hi": _number("97.5 % point of the null (95 % for the null of a layer)"),
    "null_max95": _number("95 % point of the maximum of the null over everything searched"),
    "n_perm": _number("number of permutations or draws of the null"),
    "p_least": _number("smallest p that the null can give for any data"),
    "scheme": Column("what was permuted"),
    "chance": _number("what guessing reaches"),
    "majority": _number("share of the more frequent label"),
    "selectivity": _number("metric minus that of a control label on the same inputs"),
    "selectivity_lo": _number("lower end of its interval"),
    "selectivity_hi": _number("upper end of its interval"),
    "selectivity_null_hi": _number("95 % of the difference between two control labels"),
    "n_seeds": _number("number of seeds of the split for which the value was recomputed"),
    "seed_sd": _number("standard deviation of the value over these seeds"),
    "seed_min": _number("smallest value over these seeds"),
    "seed_max": _number("largest value over these seeds"),
    "certificate": _number("optimality certificate of the fit: upper bound on duality gap or gradient norm"),
    "selected": _flag("whether this layer and site were chosen on DEV"),
    "bin": _number("bin of a reliability curve"),
    "p_lo": _number("lower edge of the bin"),
    "p_hi": _number("upper edge of the bin"),
    "p_mean": _number("mean probability in the bin"),
    "drop": _number("value minus the ceiling, which is the probe fitted on the target"),
    "drop_lo": _number("lower end of its interval"),
    "drop_hi": _number("upper end of its interval"),
    "only_engaged": _number("number of items that only the engaged member answers correctly"),
    "only_heuristic": _number("number of items that only the heuristic member answers correctly"),
    "p": _number("p of the test with groups as units; for a slope, the larger of `p_random` and `p_shuffled`"),
    "p_items": _number("exact McNemar p with items as units: too small where items of a group agree"),
    "p_random": _number("p of a slope against random directions only; blank if there are fewer than 19"),
    "p_shuffled": _number("p of a slope against label-shuffled directions only; blank if there are fewer than 19"),
    "smallest_p": _number(
        "smallest p that this number of controls can give: 1 / (1 + controls), for the kind with fewer controls"
    ),
    "p_adjusted": _number("p after the correction"),
    "correction": Column("correction that was applied, and over what"),
    "margin": _number("largest difference that still counts as equal, if equivalence is declared"),
    "verdict": Column(
        "in words: equivalence by two one-sided tests, or what the gap of an oracle shows; blank where none is tested; "
        "of a known truth: found, missed, false_alarm, silent, not_testable"
    ),
    "claim": Column("what would be claimed of the pair, as a sentence"),
    "planted": _flag("it was planted in the pair, so that a run has to claim it; else no run may"),
    "claim_key": Column("key of the claim that decides it"),
    "claim_verdict": Column("verdict of that claim by the rule of the ledger; 'not run' where no step made it"),
    "smallest_detectable": _number(
        "smallest effect, from the null, that 80 % of studies of this size show; blank: none"
    ),
    "n_needed": _number("n at which 80 % of studies show the smallest effect of interest; blank where n suffices"),
    "label_mass": _number("mean total probability of the labels at the slot, in the unchanged run"),
    "guard": _number("limit that a guarded metric must not cross"),
    "gap": _number("control minus real, paired; nats per answer token"),
    "gap_lo": _number("lower end of its interval"),
    "gap_hi": _number("upper end of its interval"),
    "floor": _number("the larger of prior-only oracle and majority"),
    "prior": _number("accuracy of the prior-only oracle"),
    "text_only": _number("the same question answered from the text alone"),
    "probe": _number("linear probe on the same vectors"),
    "gold": Column("gold label that is counted"),
    "pred": Column("answer that is counted, or whose probability is given"),
    "count": _number("number of items with this gold label and this answer"),
    "seed": _number("seed of the items, the resamples and the null"),
    "before": _number("for a change: value of the first run"),
    "after": _number("value of the second run"),
    "read_by": Column("member through which a reply was read"),
    "item": Column("id of the item"),
    "sample": _number("number of the reply to this item, from 0"),
    "group": Column("independent group of the item"),
    "is_correct": _flag("the reply's label is the gold label; blank where the task does not say"),
    "is_positive": _flag("the reply has the class that counts as 1"),
    "token": _number("number of the token in the reply, from 0; -1: the last token of the prompt"),
    "token_id": _number("id of the token"),
    "token_text": Column("text that the token completes; together they are the reply"),
    "fraction": _number("share of the reply read at the token: 0 at token -1, 1 at the last"),
    "span": Column("decision site of the task that the token is the last one before; blank elsewhere"),
    "score": _number("score of the probe: activation times weights plus bias"),
    "null_median": _number("median of the control directions at the token, on the scale of the score"),
    "rank": _number("1 + number of control directions that score higher at the token, each on its own scale"),
    "n_controls": _number("number of control directions (probes fitted on shuffled labels)"),
    "prompt": Column("text of the prompt, with the markers of its template"),
    "reply": Column("text of the reply"),
    "pooling": Column("how scores of the tokens read so far become one: max, mean, last; selected: the one of DEV"),
    "axis": Column("how far a reply is read: fraction of its tokens, or number of tokens"),
    "at": _number("place on that axis"),
    "note": Column("caveats of the row, or the reason why there is no value"),
}

KEYS = (
    "analysis", "member", "model", "adapter", "data_sha256", "metric", "value", "lo", "hi", "n", "n_groups",
    "interval", "control", "control_value", "p", "p_adjusted", "correction", "seed", "note",
)  # fmt: skip
"""In every table; blank where a metric has none."""

DIFFERENCE = "engaged - heuristic"
"""`member` of a paired difference."""

FOLDER = "tables"
TABLES = {
    "eval": "accuracy, unparsed, length, confidence and the task's own scores, per member and cell",
    "pair": "per cell: both members on the same items, and engaged minus heuristic with its tests",
    "heads": "effect of every head under every definition, per member and kind of change",
    "heads_selected": "main effect of every head on both halves of the pairs: chosen on one, reported on the other",
    "heads_difference": "engaged minus heuristic for every head, members of one architecture",
    "heads_cumulative": "result of removing the first k heads together, next to random heads",
    "heads_together": "effect of sets of heads that were named, next to random sets and to their heads one by one",
    "order_swap": "answers to order-swapped twins: binding, next to baselines that ignore the order",
    "probes": "probes per layer with null, selectivity, TEST at the selected layer, and calibration",
    "probes_transfer": "probes of one checkpoint applied to another, next to both ceilings",
    "steering": "dose curves of each direction and its random and shuffled controls",
    "steering_slopes": "one slope per direction, control and score",
    "along": "how well a probe separates replies after each part of them, with nulls, confounds and decodable-at",
    "oracle": "answers of an oracle from activations, next to its floors and matched shuffles",
    "known_truth": "what was planted in the pair, and what this run claims of it: found, missed, false alarms",
}
"""Tables of the analyses of this package; `declare` adds those of others."""


def declare(columns: Mapping[str, Column], tables: Mapping[str, str]) -> None:
    """Add the columns and tables of an analysis of another package to `COLUMNS` and `TABLES`.

    Raises:
        ValueError: a name that means something else here.
    """
    _declare("column", columns, COLUMNS)
    _declare("table", tables, TABLES)


def _declare(what: str, entries: Mapping[str, T], registry: dict[str, T]) -> None:
    for name, meaning in entries.items():
        if registry.setdefault(name, meaning) != meaning:
            raise ValueError(f"{what} {name!r} is declared already, with another meaning: {registry[name]}. Rename it.")


_NUMBERS = ("value", "lo", "hi", "n")
_TEXT = ("analysis", "member", "metric", "interval")


def tidy(rows: pd.DataFrame | Sequence[Mapping[str, object]], **same: Any) -> pd.DataFrame:
    """Rows with every key column, key columns first, in the order of `COLUMNS`; `same` fills what is the same in all.

    Raises:
        ValueError: a column that `COLUMNS` does not name.
    """
    import pandas as pd

    table = (rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))).assign(**same)
    unknown = [name for name in table.columns if name not in COLUMNS]
    if unknown:
        raise ValueError(f"columns {', '.join(map(repr, unknown))}: not in study.schema.COLUMNS. Document them there.")
    table = table.reindex(columns=[name for name in COLUMNS if name in KEYS or name in table.columns])
    return table.reset_index(drop=True)


def with_mass_note(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, noted where the labels hold little of the probability at the place where they are read."""
    if "label_mass" not in rows:
        return rows
    said = [mass_note(mass) for mass in rows["label_mass"].astype(float)]
    notes = ["; ".join(filter(None, both)) for both in zip(rows["note"], said, strict=True)]
    return rows.assign(note=notes)


def check_table(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table, if every number in it has its interval, n and provenance.

    Raises:
        ValueError: a missing or unknown column, no rows, a value without lo, hi or n, lo > hi, a row that has neither a
            value nor a note, or one that does not say which analysis, member, metric and interval it is of.
    """
    missing = [column for column in KEYS if column not in table.columns]
    unknown = [column for column in table.columns if column not in COLUMNS]
    if missing or unknown:
        what = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise ValueError(f"table {name!r} {' and '.join(what)}. Build it with study.schema.tidy.")
    if not len(table):
        raise ValueError(f"table {name!r} has no rows.")
    numbers = table[list(_NUMBERS)].astype(float)
    known = numbers["value"].notna()
    for column in ("lo", "hi", "n"):
        _refuse(table, name, known & numbers[column].isna(), f"a value without {column}: no number without its control")
    _refuse(table, name, known & (numbers["lo"] > numbers["hi"]), "lo > hi")
    _refuse(table, name, known & (numbers["n"] < 1), "n below 1")
    _refuse(table, name, ~known & (table["note"].fillna("") == ""), "neither a value nor a note that says why not")
    for column in _TEXT:
        blank = table[column].isna() | (table[column].astype(str) == "")
        _refuse(table, name, blank & (known | (column != "interval")), f"no {column}")
    return table


def _refuse(table: pd.DataFrame, name: str, bad: pd.Series, why: str) -> None:
    if bool(bad.any()):
        first = table[bad].iloc[0]
        keys = ("member", "cell", "target", "site", "head", "metric")
        where = ", ".join(f"{k} {first[k]}" for k in keys if k in table and str(first[k]) not in ("", "nan", "None"))
        raise ValueError(f"table {name!r}: {why} in {int(bad.sum())} of {len(table)} rows, first {where or 'row'}.")


def write_table(table: pd.DataFrame, folder: Path, name: str) -> tuple[Path, Path]:
    """`folder/<name>.parquet` and `.csv` of a checked table, each written atomically; the same table, the same bytes.

    Args:
        folder: the run's `tables`.
    Raises:
        ValueError: as `check_table`; OSError: no room.
    """
    check_table(table, name)
    return frames.write_table(typed(table), folder, name, float_format="%.10g")


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Each column as text, float or bool, so that every reader and every run sees the same types."""
    import pandas as pd

    out = {}
    for name in table.columns:
        column = table[name]
        if COLUMNS[name].kind == "number":
            out[name] = pd.to_numeric(column).astype("float64")
        elif COLUMNS[name].kind == "flag":
            out[name] = column.map(lambda v: None if pd.isna(v) else _is_true(v)).astype("boolean")
        else:
            out[name] = column.map(lambda v: "" if pd.isna(v) else str(v)).astype(object)
    return pd.DataFrame(out)


def _is_true(value: object) -> bool:
    """A flag; of a CSV file with blanks it is text."""
    return value == "True" if isinstance(value, str) else bool(value)


def read_table(run: Path, name: str) -> pd.DataFrame:
    """One table of a run folder.

    Raises:
        ValueError: the run has no such table (lists those it has), or a damaged one; as `check_table`.
    """
    path = run / FOLDER / f"{name}.parquet"
    if not path.is_file():
        known = ", ".join(p.stem for p in sorted((run / FOLDER).glob("*.parquet"))) or "none"
        raise ValueError(f"{run}: no table {name!r}. Tables: {known}.")
    return check_table(read_frame(path, do="Delete it and run the study again."), name)


def read_csv_table(path: Path) -> pd.DataFrame:
    """A table that a command wrote as CSV, with the types that the same table of a run has.

    Raises:
        ValueError: no such file, or one that lacks the columns of every table.
    """
    return typed(read_frame(path, KEYS, keep_default_na=False, na_values=[""]))


def read_tables(run: Path, *, without: Collection[str] = ()) -> dict[str, pd.DataFrame]:
    """Every table of a run folder by name, in the order of `TABLES`; those of the names `without` are not read."""
    found = {path.stem for path in (run / FOLDER).glob("*.parquet")} - set(without)
    return {name: read_table(run, name) for name in [*(t for t in TABLES if t in found), *sorted(found - set(TABLES))]}
