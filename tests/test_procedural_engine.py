"""The rule engine and the perturbations: hand-worked audits, brute-force oracles, 4,000 draws of every row."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import permutations
from random import Random

import pytest

from interp.tasks.procedural.cells import grid
from interp.tasks.procedural.engine import audit
from interp.tasks.procedural.generate import GeneratorConfig, original
from interp.tasks.procedural.latent import Event, Instance, Procedure, Proviso, Scenario, Step, procedure_id
from interp.tasks.procedural.order_swaps import matched_twins
from interp.tasks.procedural.perturb import PERTURBATIONS, parent_of, unchanged
from interp.tasks.procedural.render import render

N_DRAWS = 4000
FLASK, SASH, BENCH, DRUM = "flask", "sash", "bench", "drum"


def lab(*events: Event, holds: bool = False, kind: str = "replace", in_order: bool = True, needs=()) -> Instance:
    """1 anyone flask, 2 manager sash, 3 anyone bench; if spill then step 2 {replace, waive, add} manager drum."""
    proviso = Proviso("spill", 2, kind, None if kind == "waive" else Step(DRUM, 1))
    steps = (Step(FLASK), Step(SASH, 1), Step(BENCH))
    procedure = Procedure("lab_safety", "MIT", steps, tuple(needs), (proviso,), (1, 2, 3), in_order)
    return Instance(procedure, Scenario((("alarm", True), ("spill", holds)), events, tone=0))


F, S, B, D = Event("assistant", FLASK), Event("manager", SASH), Event("assistant", BENCH), Event("manager", DRUM)


@pytest.mark.parametrize(
    ("events", "holds", "kind", "verdicts"),
    [
        ((F, S, B), False, "replace", ("ok", "ok", "ok")),
        ((F, B), False, "replace", ("ok", "missing", "ok")),
        ((F, S, replace(B, done=False)), False, "replace", ("ok", "ok", "skipped")),
        ((F, B, S), False, "replace", ("ok", "ok", "order")),
        ((F, replace(S, actor="assistant"), B), False, "replace", ("ok", "role", "ok")),
        ((S, replace(F, actor="manager"), B), False, "replace", ("ok", "order", "ok")),
        ((F, S, B), True, "replace", ("ok", "missing", "ok")),
        ((F, D, B), True, "replace", ("ok", "ok", "ok")),
        ((F, D, B), False, "replace", ("ok", "missing", "ok")),
        ((F, replace(D, actor="assistant"), B), True, "replace", ("ok", "role", "ok")),
        ((F, B), True, "waive", ("ok", "ok", "ok")),
        ((F, B), False, "waive", ("ok", "missing", "ok")),
        ((F, S, D, B), True, "add", ("ok", "ok", "ok", "ok")),
        ((F, S, B), True, "add", ("ok", "ok", "missing", "ok")),
        ((F, D, S, B), True, "add", ("ok", "ok", "order", "ok")),
        ((F, B, replace(S, done=False)), False, "replace", ("ok", "skipped", "ok")),  # nothing is late to an omission
        ((F, S, B, replace(F, done=False)), False, "replace", ("ok", "ok", "ok")),  # the first event counts
    ],
)
def test_hand_worked_audits(events, holds, kind, verdicts):
    finding = audit(lab(*events, holds=holds, kind=kind))
    assert finding.verdicts == verdicts
    assert finding.label == ("compliant" if set(verdicts) == {"ok"} else "noncompliant")
    assert finding.triggers == (holds,)


@pytest.mark.parametrize(
    ("events", "verdicts"),  # 3 needs 2, which an exception doubles: sash, then drum
    [
        ((B, F, S, D), ("ok", "ok", "ok", "order")),
        ((S, D, B, F), ("ok", "ok", "ok", "ok")),
        ((S, B, D, F), ("ok", "ok", "ok", "order")),
        ((D, S, B, F), ("ok", "ok", "order", "ok")),
        ((D, B, S, F), ("ok", "ok", "order", "order")),
        ((D, B, F), ("ok", "missing", "ok", "ok")),
    ],
)
def test_hand_worked_audits_without_a_total_order(events, verdicts):
    finding = audit(lab(*events, holds=True, kind="add", in_order=False, needs=((3, 2),)))
    assert finding.verdicts == verdicts


def test_a_condition_that_no_fact_states_does_not_hold():
    instance = lab(F, S, B)
    assert audit(replace(instance, scenario=replace(instance.scenario, facts=()))).triggers == (False,)


def test_with_a_total_order_the_label_of_a_complete_scenario_is_sortedness():
    config = GeneratorConfig(n_steps=(5, 5), max_extra=0)
    for seed in range(20):
        instance = original(Random(seed), config)
        for order in permutations(range(5)):
            told = tuple(instance.scenario.events[k] for k in order)
            label = audit(replace(instance, scenario=replace(instance.scenario, events=told))).label
            assert (label == "compliant") == (list(order) == sorted(order))


def test_with_a_partial_order_the_label_is_whether_every_prerequisite_comes_first():
    config = GeneratorConfig(n_steps=(4, 5), max_extra=0, in_order=False)
    n_compliant = 0
    for seed in range(40):
        instance = original(Random(seed), config)
        for order in permutations(range(1, len(instance.procedure.steps) + 1)):
            told = tuple(instance.scenario.events[k - 1] for k in order)
            label = audit(replace(instance, scenario=replace(instance.scenario, events=told))).label
            extends = all(order.index(early) < order.index(late) for late, early in instance.procedure.needs)
            assert (label == "compliant") == extends
            n_compliant += extends
    assert n_compliant > 100  # both answers occur


# row -> verdicts other than ok that it may cause; written by hand from the specification, not read off the table
CAUSES = {
    "baseline_noncompliant": {"skipped"},
    "step_reorder_invalid": {"order"},
    "prerequisite_omission": {"missing"},
    "hierarchy_violation": {"role"},
    "exception_trigger": {"missing"},
    "ord_swap_flip": {"order"},
    "ord_swap_reordered": {"order"},
    "adversarial_surface_noncompliant": {"skipped", "order", "missing", "role"},
    "baseline_noncompliant_aligned": {"skipped", "order", "missing", "role"},
    "lexical_paraphrase_noncompliant": {"skipped", "order", "missing", "role"},
    "distractor_injection_noncompliant": {"skipped", "order", "missing", "role"},
}
FLIPS = {  # relative to the parent
    "baseline_noncompliant", "step_reorder_invalid", "prerequisite_omission", "hierarchy_violation",
    "exception_trigger", "adversarial_surface_noncompliant", "ord_swap_flip", "ord_swap_rebind", "ord_swap_reordered",
}  # fmt: skip


@pytest.mark.parametrize("cell", PERTURBATIONS)
def test_4000_draws_agree_with_the_declared_semantics_and_keep_what_they_declare(cell):
    row, rng = PERTURBATIONS[cell], Random(f"engine/{cell}")
    assert row.flips == (cell in FLIPS)
    for _ in range(N_DRAWS):
        base = original(rng)
        parent = parent_of(rng, base, row)
        child = row.edit(rng, parent)
        finding = audit(child)
        assert audit(base).label == "compliant"
        assert (finding.label != audit(parent).label) == row.flips
        assert set(finding.verdicts) - {"ok"} <= CAUSES.get(cell, set())
        assert (finding.label == "noncompliant") == (cell in CAUSES)
        assert procedure_id(child.procedure) == procedure_id(base.procedure)
        for kept in row.keeps:
            assert KEPT[kept](parent, child), (cell, kept)


def by_action(instance: Instance, attribute: str) -> dict[str, object]:
    return {e.action: getattr(e, attribute) for e in instance.scenario.events}


def same_on_common(a: Instance, b: Instance, attribute: str) -> bool:
    x, y = by_action(a, attribute), by_action(b, attribute)
    return all(x[k] == y[k] for k in x.keys() & y.keys())


def same_order(a: Instance, b: Instance) -> bool:
    common = by_action(a, "actor").keys() & by_action(b, "actor").keys()
    return [e.action for e in a.scenario.events if e.action in common] == [
        e.action for e in b.scenario.events if e.action in common
    ]


def words(instance: Instance) -> list[str]:
    return render(instance, rendering="log").text.split()


KEPT = {
    "procedure": lambda a, b: a.procedure == b.procedure,
    "facts": lambda a, b: a.scenario.facts == b.scenario.facts,
    "events": lambda a, b: by_action(a, "done") == by_action(b, "done"),
    "actors": lambda a, b: same_on_common(a, b, "actor"),
    "order": same_order,
    "wording": lambda a, b: same_on_common(a, b, "wording"),
    "tone": lambda a, b: a.scenario.tone == b.scenario.tone,
    "distractors": lambda a, b: a.scenario.distractors == b.scenario.distractors,
    "tokens": lambda a, b: Counter(words(a)) == Counter(words(b)),
    "length": lambda a, b: len(words(a)) == len(words(b)),
}


def test_only_the_exchanged_numbers_differ_in_an_order_swapped_prompt():
    row, rng = PERTURBATIONS["ord_swap_flip"], Random(1)
    for _ in range(200):
        base = original(rng)
        a, b = words(base), words(row.edit(rng, base))
        differing = [(x, y) for x, y in zip(a, b, strict=True) if x != y]
        assert len(differing) == 2
        assert differing[0] == differing[1][::-1]
        assert all(x.isdigit() for x in differing[0])


def test_flip_rebind_and_keep_listing_exchange_the_same_two_steps_of_a_procedure():
    rng = Random(2)
    for _ in range(200):
        base = original(rng)
        flip, keep = (PERTURBATIONS[f"ord_swap_{v}"].edit(rng, base) for v in ("flip", "keep_listing"))
        start = parent_of(rng, base, PERTURBATIONS["ord_swap_rebind"])
        rebound = PERTURBATIONS["ord_swap_rebind"].edit(rng, start)
        assert flip.procedure == rebound.procedure
        assert flip.procedure.listing == keep.procedure.listing  # the same lines trade numbers, or places
        assert start.scenario == rebound.scenario


def test_matched_adjacent_twins_share_procedure_words_and_positions_between_flips_and_keeps():
    twins = matched_twins(Random(0), 400)
    at = {kind: Counter(getattr(t, kind).index for t in twins) for kind in ("flip", "keep")}
    assert max(abs(at["flip"][k] - at["keep"][k]) for k in range(5)) <= 2
    assert Counter(audit(t.flip.original).label for t in twins) == {"compliant": 200, "noncompliant": 200}
    assert Counter(audit(t.keep.twin).label for t in twins) == {"compliant": 200, "noncompliant": 200}
    for t in twins:
        assert t.flip.original.procedure == t.keep.original.procedure
        assert (audit(t.flip.original).label != audit(t.flip.twin).label, t.flip.flips) == (True, True)
        assert (audit(t.keep.original).label != audit(t.keep.twin).label, t.keep.flips) == (False, False)
        for twin in (t.flip, t.keep):
            assert Counter(words(twin.original)) == Counter(words(twin.twin))
    with pytest.raises(ValueError, match="in_order=False"):
        matched_twins(Random(0), 1, config=GeneratorConfig())


def test_a_row_that_contradicts_the_engine_is_an_error_and_an_overridden_one_is_used():
    wrong = {**PERTURBATIONS, "baseline_noncompliant": replace(PERTURBATIONS["baseline_noncompliant"], flips=False)}
    with pytest.raises(ValueError, match="perturbation 'baseline_noncompliant': declared that it keeps the label"):
        grid(per_cell=1, seed=0, cells=["baseline_noncompliant"], table=wrong)
    mine = {**PERTURBATIONS, "hierarchy_violation": replace(PERTURBATIONS["baseline_compliant"], edit=unchanged)}
    (only,) = grid(per_cell=1, seed=0, cells=["hierarchy_violation"], table=mine)
    assert audit(only.instance).label == "compliant"


def test_an_edit_that_a_latent_does_not_admit_says_so():
    rng, instance = Random(0), lab(F, S, B)
    with pytest.raises(ValueError, match="prerequisite_omission: no prerequisite"):
        PERTURBATIONS["prerequisite_omission"].edit(rng, instance)
    free = replace(instance.procedure, steps=(Step(FLASK), Step(SASH), Step(BENCH)))
    with pytest.raises(ValueError, match="restricts no step by rank"):
        PERTURBATIONS["hierarchy_violation"].edit(rng, replace(instance, procedure=free))
    hidden = Procedure("cms_billing", "CMS", (Step("code"), Step("claim")), ((2, 1),), (), (1, 2))
    told = Scenario((), (Event("coder", "code"), Event("coder", "claim")), tone=0)
    with pytest.raises(ValueError, match="prerequisite_omission: no prerequisite with an observable"):
        PERTURBATIONS["prerequisite_omission"].edit(rng, Instance(hidden, told))
    unordered = lab(F, S, B, in_order=False)
    for cell in ("step_reorder_invalid", "ord_swap_flip"):
        with pytest.raises(ValueError, match="ordered by a constraint"):
            PERTURBATIONS[cell].edit(rng, unordered)
    with pytest.raises(ValueError, match="no exchange of two step numbers"):
        PERTURBATIONS["ord_swap_rebind"].edit(rng, lab(F, S))
