"""Claims about what is inside the members: decodable, necessary, transferring, sufficient, read by an oracle."""

from __future__ import annotations

from typing import Any

from study.figures.numbers import MINUS, fixed
from study.report.behaviour_claims import DIFFERENCE, words
from study.report.claims import (
    ALPHA,
    Above,
    Below,
    Claim,
    Control,
    Measured,
    Tables,
    below,
    flag,
    measured,
    number,
    p_words,
    rows,
    short,
)

MEMBERS = ("engaged", "heuristic")
KINDS = ("logistic", "ridge", "massmean", "massmean-iid", "lda")


def probes(tables: Tables) -> list[Claim]:
    """For every target and member: decodable at the layer that was selected, on TEST where there is one."""
    chosen = [row for row in rows(tables, "probes", role="layer", metric="auroc", cohort="all") if flag(row, "selected")]
    cells = dict.fromkeys((str(row["target"]), str(row["member"])) for row in chosen)
    if not cells:
        text = "The gold label is linearly decodable before the answer"
        return [Claim(text, "decodable", "probes", Above(0.5), why="no probes in this study")]
    own = [cell for cell in cells if cell[1] in MEMBERS] or list(cells)
    made = [_decodable(tables, chosen, target, member) for target, member in own]
    return [*made, *_probe_transfers(tables)]


def _decodable(tables: Tables, chosen: list[dict[str, Any]], target: str, member: str) -> Claim:
    here = [row for row in chosen if row["target"] == target and row["member"] == member]
    row = min(here, key=lambda r: (r["split"] != "test", number(r, "p") is None, _rank(r)))
    oof = [r for r in here if r["split"] == "oof" and r["kind"] == row["kind"]]
    p, searched = number(row, "p"), number(oof[0], "p_adjusted") if oof else None
    seen = [(where, value) for where, value in (("TEST", p if row["split"] == "test" else None), ("layers", searched))
            if value is not None]  # fmt: skip
    null = Control.of("permutation null that repeats every choice, on TEST and as the maximum over layers",
                      all(value < ALPHA for _, value in seen) if seen else None,
                      "; ".join(f"{where} {p_words(value)}" for where, value in seen))  # fmt: skip
    controls = (null, _selective(oof), _beats_text(tables, row), *_without_confounds(tables, row))
    where = f"AUROC at {row['site']}, {row['position']}" + (", TEST" if row["split"] == "test" else ", out of fold")
    return Claim(f"{words(target).capitalize()} is linearly decodable in the {member} member", "decodable", "probes",
                 Above(0.5), measured(row, name=where), controls)  # fmt: skip


def _rank(row: dict[str, Any]) -> int:
    return KINDS.index(row["kind"]) if row["kind"] in KINDS else len(KINDS)


def _selective(oof: list[dict[str, Any]]) -> Control:
    """Real minus control label, beyond what two control labels differ by."""
    row = oof[0] if oof else {}
    value, lo, null = (number(row, f"selectivity{end}") for end in ("", "_lo", "_null_hi"))
    passed = None if lo is None else lo > 0 and (null is None or (value or 0.0) > null)
    return Control.of("more decodable than a control label", passed, "" if value is None else f"by {short(value)}")


def _beats_text(tables: Tables, row: dict[str, Any]) -> Control:
    """The same rows read from the words of the prompt, without a model."""
    same = dict(target=row["target"], member=row["member"], role="control", metric="auroc", cohort="all")
    found = rows(tables, "probes", site="surface", split=row["split"], **same) or rows(
        tables, "probes", site="surface", **same
    )
    if not found:
        return Control("beats a bag of words", "not run")
    text = max(float(r["value"]) for r in found)
    return Control.of("beats a bag of words", float(row["lo"]) > text, f"{short(float(row['value']))} vs {short(text)}")


def _without_confounds(tables: Tables, row: dict[str, Any]) -> list[Control]:
    found = rows(tables, "probes", role="residual", metric="auroc", target=row["target"], member=row["member"],
                 site=row["site"], kind=row["kind"])  # fmt: skip
    return [Control.of("still there without the named confounds", float(r["lo"]) > 0.5, short(float(r["value"])))
            for r in found[:1]]  # fmt: skip


def _probe_transfers(tables: Tables) -> list[Claim]:
    """A probe of one member read on another at the same site, beside the same map on shuffled pairs."""
    found = rows(tables, "probes_transfer", metric="auroc", variant=("raw", "aligned"))
    claims = []
    for a, b, target in dict.fromkeys((r["train_checkpoint"], r["test_checkpoint"], r["target"]) for r in found):
        here = [r for r in found if (r["train_checkpoint"], r["test_checkpoint"], r["target"]) == (a, b, target)]
        same = [r for r in here if r["train_site"] == r["test_site"]]
        if a == b or not same:
            continue
        row = min(same, key=lambda r: (r["variant"] != "raw", _rank(r), -(number(r, "train_layer") or 0.0)))
        drop = number(row, "drop_hi")
        ceiling = Control.of("as good as the probe fitted there", None if drop is None else drop >= 0,
                             "" if drop is None else f"short by {short(-(number(row, 'drop') or 0.0))}")  # fmt: skip
        claims.append(Claim(f"The {words(target)} probe of {a} reads {b}", "transfers", "probes", Above(0.5),
                            measured(row, name=f"AUROC at {row['test_site']}"), (ceiling,)))  # fmt: skip
    return claims


def heads(tables: Tables) -> list[Claim]:
    """Per member: a head is necessary; what it carries transfers under the same-answer control; what training changed."""
    necessary, carries = [_necessary(tables, m) for m in MEMBERS], [_carries(tables, m) for m in MEMBERS]
    made = [claim for claim in (*necessary, *carries, *_changed(tables)) if claim]
    if made:
        return made
    why = "no head sweep in this study"
    return [
        Claim("A named head is necessary for the answer", "necessary", "heads", why=why),
        Claim("What it carries transfers under the same-answer control", "transfers", "heads", why=why),
    ]


def _necessary(tables: Tables, member: str) -> Claim | None:
    """The head named beforehand, else the largest on one half of the pairs, reported on the other."""
    every = [r for r in rows(tables, "heads", member=member, metric="abl_logit") if r.get("pairs", "all") == "all"]
    kind = min((r["kind"] for r in every), key=lambda k: (k != "mean", k), default=None)
    every = [r for r in every if r["kind"] == kind]
    named = [r for r in every if flag(r, "named")]
    halves = [r for r in rows(tables, "heads_selected", member=member, metric="abl_logit", kind=kind) if kind]
    halves = [r for r in halves if r.get("pairs", "all") == "all"]
    row, held = (named[0], None) if named else _selected(halves)
    if row is None:
        return None
    controls = [_over_all_heads(row, len(every)), _matched_head(row)]
    controls += [Control.of("chosen on one half of the pairs, reported on the other", held)] if held is not None else []
    other = [r for r in rows(tables, "heads", member=member, metric="abl_logit", head=row["head"])
             if r["kind"] not in (kind, "patch") and r.get("pairs", "all") == "all"]  # fmt: skip
    controls += [Control.of(f"another ablation ({r['kind']}) agrees", float(r["lo"]) > 0, short(float(r["value"])))
                 for r in other[:1]]  # fmt: skip
    text = f"{row['head']} is necessary for the answer of the {member} member"
    return Claim(text, "necessary", "heads", Above(), measured(row, name=f"δ {kind} ablation"), tuple(controls))


def _selected(halves: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, bool | None]:
    """The head that is largest on the half `select`, as it is on the half `report`, and whether it holds there."""
    first = [r for r in halves if r["half"] == "select"]
    best = max(first, key=lambda r: float(r["value"]), default=None)
    there = [r for r in halves if r["half"] == "report" and best and r["head"] == best["head"]]
    return (there[0], float(there[0]["lo"]) > 0) if there else (None, None)


def _over_all_heads(row: dict[str, Any], count: int) -> Control:
    p = number(row, "p_adjusted")
    over = f" over {count} heads" if count else ""
    return Control.of(f"family-wise error, max-|t|{over}", below(p), "" if p is None else p_words(p))


def _matched_head(row: dict[str, Any]) -> Control:
    control = number(row, "control_value")
    return Control.of("heads of its layer whose write is as long", None if control is None else float(row["lo"]) > control,
                      "" if control is None else f"they reach {short(control)}")  # fmt: skip


def _carries(tables: Tables, member: str) -> Claim | None:
    """Patched from a twin with the other answer, against twins whose answer is the same."""
    flips = rows(tables, "heads", member=member, kind="patch", metric="cma", pairs=("flip", "all"))
    named = [r for r in flips if flag(r, "named")]
    chosen, _ = _selected(rows(tables, "heads_selected", member=member, kind="patch", metric="cma", pairs=("flip", "all")))
    row = named[0] if named else chosen
    if row is None:
        return None
    placebo = rows(tables, "heads", member=member, kind="patch", metric="cma", pairs="keep", head=row["head"])
    same = placebo[0] if placebo else None
    answered = Control.of("same-answer control: twins that keep the answer move it less",
                          None if same is None else abs(float(same["value"])) < float(row["lo"]),
                          "" if same is None else f"they move it by {short(float(same['value']))}")  # fmt: skip
    return Claim(f"What {row['head']} carries transfers to the other answer in the {member} member", "transfers", "heads",
                 Above(), measured(row, name="δ patch"), (_over_all_heads(row, len(flips)), answered))  # fmt: skip


def _changed(tables: Tables) -> list[Claim]:
    """The largest difference of the members, head by head."""
    found = [r for r in rows(tables, "heads_difference") if r["member"] == DIFFERENCE or "member" not in r]
    if not found:
        return []
    kind = min((str(r["kind"]) for r in found), key=lambda k: (k != "mean", k))
    found = [r for r in found if r["kind"] == kind]
    named = [r for r in found if flag(r, "named")]
    row = named[0] if named else max(found, key=lambda r: abs(float(r["value"])))
    higher = float(row["value"]) >= 0
    text = f"{row['head']} does more in the {'engaged' if higher else 'heuristic'} member"
    return [Claim(text, "necessary", "heads", Above() if higher else Below(),
                  measured(row, name=f"difference, {kind}", signed=True), (_over_all_heads(row, len(found)),))]  # fmt: skip


def steering(tables: Tables) -> list[Claim]:
    """Each direction at its largest strength: every metric without a guard is a target, one with a guard must hold."""
    table = rows(tables, "steering")
    arms = dict.fromkeys((str(r["member"]), str(r["arm"])) for r in table if number(r, "null_lo") is not None)
    made = [c for member, arm in arms for c in _moves(table, member, arm)]
    why = "no steering in this study"
    return made or [Claim("Adding a direction changes the answer", "sufficient", "steering", why=why)]


def _moves(table: list[dict[str, Any]], member: str, arm: str) -> list[Claim]:
    own = [r for r in table if r["member"] == member and r["arm"] == arm]
    strength = "alpha_norm" if any(number(r, "alpha_norm") is not None for r in own) else "alpha"
    top = max((number(r, strength) or 0.0 for r in own), default=0.0)
    claims = []
    for metric in dict.fromkeys(str(r["metric"]) for r in own if number(r, "guard") is None):
        curve = [r for r in own if r["metric"] == metric]
        zero = next((float(r["value"]) for r in curve if number(r, strength) == 0), None)
        at = [r for r in curve if number(r, strength) == top]
        if zero is not None and at and top:
            claims.append(_moved(own, at[0], zero, arm, member, metric, strength, top))
    return claims


def _moved(
    own: list[dict[str, Any]], row: dict[str, Any], zero: float, arm: str, member: str, metric: str, strength: str,
    top: float,
) -> Claim:  # fmt: skip
    lo, hi, p = number(row, "null_lo"), number(row, "null_hi"), number(row, "p_adjusted") or number(row, "p")
    value = float(row["value"])
    beyond = None if lo is None or hi is None else not lo <= value <= hi
    guarded = [r for r in own if number(r, "guard") is not None and number(r, strength) == top]
    controls = [
        Control.of("beyond random and shuffled directions of equal norm", beyond and below(p) is not False if beyond is not None else None,
                   "" if p is None else p_words(p)),
        *(Control.of(f"{words(r['metric'])} stays above its guard", float(r["lo"]) >= (number(r, "guard") or 0.0),
                     f"{short(float(r['value']))} against {short(number(r, 'guard'))}") for r in guarded),
    ]  # fmt: skip
    change = Measured(value - zero, float(row["lo"]) - zero, float(row["hi"]) - zero, int(row["n"]), _groups(row),
                      f"at {fixed(top, 2).replace('-', MINUS)} {'residual norms' if strength == 'alpha_norm' else 'α'}", "", True,
                      str(row.get("unit") or "items"), str(row.get("group_unit") or "groups"))  # fmt: skip
    verb = "raises" if value >= zero else "lowers"
    return Claim(f"Adding {arm} {verb} {words(metric)} in the {member} member", "sufficient", "steering",
                 Above() if value >= zero else Below(), change, tuple(controls))  # fmt: skip


def _groups(row: dict[str, Any]) -> int | None:
    found = number(row, "n_groups")
    return None if found is None else int(found)


def oracle(tables: Tables) -> list[Claim]:
    """For each question: the reader answers from these activations, not from priors, text or a shuffle."""
    found = [r for r in rows(tables, "oracle") if number(r, "gap") is not None]
    made = []
    for r in found:
        gap = Measured(float(r["gap"]), float(r["gap_lo"]), float(r["gap_hi"]), int(r["n"]), _groups(r), "gap", "nats", True,
                       str(r.get("unit") or "items"), str(r.get("group_unit") or "groups"))  # fmt: skip
        floor, text, probe = number(r, "floor"), number(r, "text_only"), number(r, "probe")
        value, target = float(r["value"]), words(r.get("target") or r.get("cell"))
        controls = (
            Control.of("matched shuffle", float(r["gap_lo"]) > 0),
            Control.of("above prior-only reader and majority", None if floor is None else float(r["lo"]) > floor, short(floor)),
            Control.of("beats the text alone", None if text is None else value > text, short(text)),
            Control.of("beats a linear probe on the same vectors", None if probe is None else value >= probe,
                       "" if probe is None else f"{short(value)} vs {short(probe)}"),
        )  # fmt: skip
        made.append(Claim(f"The oracle reads {target} from activations", "reads", "oracle", Above(), gap, controls))
    return made or [Claim("An oracle reads it from activations", "reads", "oracle", why="no oracle in this study")]
