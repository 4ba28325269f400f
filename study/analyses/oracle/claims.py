"""Claims about what is read: an oracle answers from activations, beyond priors, text and a shuffle."""

from __future__ import annotations

from dataclasses import replace

from study.config.sections import SmallestEffects
from study.designs import of_mean
from study.ledger import Above, Claim, Control, short
from study.ledger_rows import Tables, bounds, measured, number, rows, words
from study.rows import Row


def oracle(tables: Tables, smallest: SmallestEffects) -> list[Claim]:
    """For each question: the reader answers from these activations, not from priors, text or a shuffle."""
    gap_rows = [row for row in rows(tables, "oracle") if number(row, "gap") is not None]
    gaps = {_asked(row): row for row in rows(tables, "oracle", metric="gap_shuffled")}
    oracle_claims = [_reads(row, gaps.get(_asked(row)), smallest) for row in gap_rows]
    return oracle_claims or [
        Claim("An oracle reads it from activations", "reads", "oracle", why="no oracle in this study")
    ]


def placebos(tables: Tables, smallest: SmallestEffects) -> list[Claim]:
    """Of each question: that the oracle answers it with zeroed activations, better than the most common answer
    would."""
    return [
        Claim(
            f"The oracle reads {words(row['target'])} of {row['member']} with nothing injected",
            "reads",
            "oracle",
            Above(),
            measured(row, name="accuracy minus that of the most common answer", signed=True),
            (Control.at_least("above the most common answer", bounds(row), 0.0, sort="null"),),
            smallest=smallest.accuracy,
            key=f"oracle/zero/{row['target']}/{row['member']}",
        )
        for row in rows(tables, "oracle", metric="accuracy_zero")
    ]


def _asked(row: Row) -> tuple[str, ...]:
    return tuple(str(row.get(key)) for key in ("target", "member", "cell"))


def _reads(row: Row, shuffled: Row | None, smallest: SmallestEffects) -> Claim:
    """One question, from its row of accuracy and its row of the gap to a matched shuffle, which is the estimate."""
    target = words(row.get("target") or row.get("cell"))
    source = str(row.get("member") or "")
    claim = f"The oracle reads {target} from activations" + (" of {member}" if source else "")
    key = f"oracle/reads/{row.get('target')}/{row.get('member')}"
    if shuffled is None:
        return _of(Claim(claim, "reads", "oracle", why="no row of the gap to a matched shuffle", key=key), source)
    estimate = replace(measured(shuffled, name="gap", signed=True), unit="nats")
    p = number(shuffled, "p")
    controls = (
        Control.at_least("matched shuffle", (estimate.lo, estimate.hi), 0.0, sort="null"),
        _paired(row, "above prior-only reader and majority", "floor"),
        _paired(row, "beats the text alone", "text_only"),
        _paired(row, "not below a linear probe on the same vectors", "probe", margin=smallest.accuracy),
    )
    made = Claim(
        claim,
        "reads",
        "oracle",
        Above(),
        estimate,
        controls,
        smallest=smallest.nats,
        tests=() if p is None else (p,),
        key=key,
        design=of_mean(shuffled, smallest.nats),
    )
    return _of(made, source)


def _of(claim: Claim, source: str) -> Claim:
    return claim.of(source) if source else claim


def _paired(row: Row, name: str, control: str, *, margin: float = 0.0) -> Control:
    """Accuracy minus that of a control on the same readings, by its own interval."""
    value = number(row, control)
    detail = "" if value is None else f"{short(float(row['value']))} vs {short(value)}"
    return Control.at_least(name, bounds(row, f"{control}_difference"), -margin, detail)
