"""Step oracle: what an oracle adapter reads from activations, compared with its floors, the text, a probe and a
shuffle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from interp.import_path import function_for
from interp.progress import track
from study.analyses.base import Context, Step, Work
from study.embedded import EMBEDDED
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

    from interp.io.items import ItemStore
    from interp.model import Model
    from interp.oracle import Choices, Features, Oracle
    from interp.prompt import Example
    from study.analyses.oracle.options import OracleOptions, OracleQuestion
    from study.analyses.shapes import Fault, Layouts
    from study.config.sections import Study

KIND, READINGS = "readings of an oracle", "readings"
ROLE, PRIOR = "oracle", "prior"
CONTROLS = ("shuffled", "zero", "text_only")


def run(context: Context) -> list[str]:
    """Rows of every question and source as items of `readings/`; a killed run continues with the next one."""
    from interp.io.items import ItemStore

    section = context.section
    readings = [(q, source) for q in section.questions for source in section.sources]
    identity = {
        "section": _by_name(asdict(section)),
        "seed": context.study.seed,
        "data": context.data_sha256,
        "members": {role: origin["weights"] for role, origin in context.provenance.items()},
    }
    with ItemStore.writing(context.folder / READINGS, KIND, identity) as store:
        open_cells = [(q, source) for q, source in readings if _key(q, source) not in store]
        if open_cells:
            _fill(context, store, open_cells)
        return [note for q, source in readings for note in store.get_json(_key(q, source))["notes"]]


def _by_name(value: object) -> object:
    """Files and folders by their name alone: where they lie is nothing that a run folder tells."""
    if isinstance(value, dict):
        return {key: _by_name(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_by_name(inner) for inner in value]
    if isinstance(value, str) and "/" in value and Path(value).expanduser().exists():
        return Path(value).name
    return value


def _fill(context: Context, store: ItemStore, open_cells: Sequence[tuple[OracleQuestion, str]]) -> None:
    """Read what is not there."""
    from study.analyses.items import examples_of

    study, section = context.study, context.section
    examples = examples_of(study, chains=True) if any(q.readings is None for q, _ in open_cells) else []
    targets = {q.name: _targets(q, examples) for q, _ in open_cells if q.readings is None}
    model = _load(study)
    oracle = _oracle(model, section, study.seed)
    for question, source in _shown(open_cells):
        if question.readings is not None:
            feats, gold = _given(model, question, source, section, study.seed)
        else:
            feats, gold = _features(oracle, examples, question, source, targets[question.name], section)
        rows, reasons = _read(oracle, feats, question, gold, section, study.seed)
        notes = [f"{question.name}, {source}: {text}" for text in reasons]
        content = {"question": question.name, "source": source, "rows": rows, "notes": notes, **_about(model)}
        store.put_json(_key(question, source), content)


def _shown(cells: Sequence[tuple[OracleQuestion, str]]) -> Iterator[tuple[OracleQuestion, str]]:
    """Questions and sources in turn, with their progress."""
    with track("oracle", len(cells), unit="questions and sources") as bar:
        for cell in cells:
            with bar.step():
                yield cell


def _key(question: OracleQuestion, source: str) -> str:
    return f"{question.name}|{source}"


def _adapters(section: OracleOptions) -> tuple[str, str | None]:
    """Folder or id of the oracle and of its prior-only twin."""
    from study.embedded import weights_folder

    if section.adapter == EMBEDDED:
        return str(weights_folder() / "oracle"), section.prior or str(weights_folder() / "oracle_prior")
    return section.adapter, section.prior


def _load(study: Study) -> Model:
    """The base with the oracle's adapter, its prior-only twin, and the members that are read, side by side."""
    from interp.checkpoint import Checkpoint
    from interp.loading import load

    section = study.oracle
    assert section is not None
    first, (adapter, prior) = next(iter(study.members.values())), _adapters(section)
    kept = {key: getattr(section, key) for key in ("adapter_revision", "subfolder") if getattr(section, key)}
    others = []
    if prior is not None:
        others.append(Checkpoint(PRIOR, first.base, prior, first.revision))
    named = {word.strip() for source in section.sources for word in source.split(" - ")}
    others += [dataclasses.replace(c, name=role) for role, c in study.members.items() if role in named]
    oracle = Checkpoint(ROLE, first.base, adapter, first.revision, **kept)
    return load(oracle, siblings=others, **asdict(study.load))


def _oracle(model: Model, section: OracleOptions, seed: int) -> Oracle:
    from interp.oracle import Oracle, OracleSpec

    fields: Row = {key: tuple(value) if isinstance(value, list) else value for key, value in section.spec.items()}
    adapter, prior = _adapters(section)
    inner = Path(adapter) / section.subfolder if section.subfolder and Path(adapter).is_dir() else adapter
    spec = OracleSpec(**fields) if fields else OracleSpec.infer(inner, model, revision=section.adapter_revision)
    return Oracle(model, adapter=ROLE, spec=spec, prior=PRIOR if prior else None, seed=seed)


def _targets(question: OracleQuestion, examples: Sequence[Example]) -> dict[tuple[str, int | None], str]:
    """(example, sentence) -> right answer, from the question's labels file; (example, None) from the examples."""
    from interp.tasks.records import read_rows

    if question.labels is None:
        return {(e.id, None): str(e.label) for e in examples if e.label is not None}
    ids, labels = {e.id for e in examples}, {}
    for where, row in read_rows(question.labels):
        if row.get("task", question.name) != question.name or row.get("status", "ok") != "ok":
            continue
        for name in ("id", "sentence", "label"):
            if row.get(name) is None:
                raise ValueError(f"{where}, field {name!r}: expected a value; lines are {{id, sentence, label}}.")
        if str(row["id"]) in ids:
            labels[str(row["id"]), int(row["sentence"])] = str(row["label"])
    if not labels:
        raise ValueError(f"oracle: {question.labels} has no label of {question.name!r} for any item of the task.")
    return labels


def _features(
    oracle: Oracle,
    examples: Sequence[Example],
    question: OracleQuestion,
    source: str,
    targets: Mapping[tuple[str, int | None], str],
    section: OracleOptions,
) -> tuple[Features, dict[str, str]]:
    """Activations of the readings that have a right answer among the choices, and these answers."""
    from interp.oracle import collect

    chosen = [e for e in examples if any(key[0] == e.id for key in targets)]
    per = "token" if question.labels is not None else "example"
    group = _problem_column(section.groups, chosen)
    layers = section.layers or oracle.spec.layers
    feats = collect(
        oracle.model,
        chosen,
        layers=layers,
        positions=question.positions,
        per=per,
        sources=[source],
        group=group,
        thinking=section.thinking,
    )[source]
    gold, taken = {}, {}
    for slot in feats.slots:
        if question.labels is None:
            taken[slot.item] = (slot.item, None)
        else:  # readings of single tokens are called example@token
            taken[slot.item] = (slot.item.rpartition("@")[0], slot.sentence)
    for item, key in taken.items():
        if targets.get(key) in question.choices:
            gold[item] = targets[key]
    kept = [item for item in feats.items if item in gold][: section.limit]
    if len(kept) < 2:
        raise ValueError(f"oracle question {question.name!r}: {len(kept)} readings have an answer among the choices.")
    return feats.select(kept), {item: gold[item] for item in kept}


def _problem_column(groups: str | None, examples: Sequence[Example]) -> str | None:
    """The column that names the problem; None where no example has it, so that each is a problem of its own."""
    lacking = [e.id for e in examples if not groups or groups not in e.groups]
    if len(lacking) == len(examples):
        return None
    if lacking:
        shown = ", ".join(lacking[:5]) + (", …" if len(lacking) > 5 else "")
        raise ValueError(
            f"oracle.groups: expected {groups!r} on every item or on none; {len(lacking)} of {len(examples)} lack it: "
            f"{shown}. Add it to their groups, or leave these items out: as problems of their own they would narrow "
            "every interval."
        )
    return groups


def _given(
    model: Model, question: OracleQuestion, source: str, section: OracleOptions, seed: int
) -> tuple[Features, dict[str, str]]:
    """Readings of a function of the study's own."""
    import importlib

    assert question.readings is not None
    module, _, name = question.readings.partition(":")
    read = function_for(
        getattr(importlib.import_module(module), name), f"{module}:{name}", "model", "sources=", "seed="
    )
    feats, gold = read(model, sources=[source], seed=seed)
    kept = [item for item in feats[source].items if gold.get(item) in question.choices][: section.limit]
    return feats[source].select(kept), {item: gold[item] for item in kept}


def _read(
    oracle: Oracle,
    feats: Features,
    question: OracleQuestion,
    gold: Mapping[str, str],
    section: OracleOptions,
    seed: int,
) -> tuple[list[Row], list[str]]:
    """Rows of one question from one source: accuracy with its floors, and the gap to every control."""
    from study.analyses.oracle.probe import probe_right
    from study.analyses.oracle.tables import oracle_rows

    controls = (*CONTROLS, *((PRIOR,) if oracle.prior else ()))
    choices: Choices = oracle.choose(
        feats, question.question, question.choices, controls=controls, n_partners=section.n_partners
    )
    probe = probe_right(feats, gold, seed=seed)
    notes = [] if probe is not None else ["no probe on the same vectors: too few problems per answer"]
    return oracle_rows(choices, gold, probe), notes


def _about(model: Model) -> dict[str, str]:
    return {"dtype": str(model.dtype).removeprefix("torch.")}


def tables(context: Context) -> dict[str, pd.DataFrame]:
    """`oracle`: per question and source, accuracy next to floor, text and probe, and the gaps."""
    from interp.io.items import ItemStore
    from study.analyses.oracle.tables import oracle_table
    from study.run.digest import Digests, sha256_of, shown

    first = next(iter(context.study.members.values()))
    model = shown(first)["base"]
    rows, store = [], ItemStore.reading(context.folder / READINGS, KIND)
    for question in context.section.questions:
        for source in context.section.sources:
            stored = store.get_json(_key(question, source))
            same = {"member": source, "target": question.name, "dtype": stored["dtype"]}
            rows += [{**row, **same} for row in stored["rows"]]
    data = sha256_of(
        [context.data_sha256, [Digests().file(path) for paths in files(context.study).values() for path in paths]]
    )
    adapter = context.section.adapter.rstrip("/").split("/")[-1] if "/" in context.section.adapter else ""
    about = {"model": model, "adapter": f"read by {adapter or context.section.adapter}", "data_sha256": data}
    return {"oracle": oracle_table(rows, seed=context.study.seed, **about)}


def check(study: Study) -> None:
    """An oracle is an adapter of one base; what it reads must be on that base."""
    assert study.oracle is not None
    first = next(iter(study.members.values()))
    home = (first.base, first.revision)
    others = [role for role, c in study.members.items() if (c.base, c.revision) != home]
    named = {word.strip() for source in study.oracle.sources for word in source.split(" - ")}
    if strange := sorted(named & set(others)):
        raise ValueError(
            f"oracle.sources: {', '.join(strange)}: not on {first.base!r}, the base that the oracle's adapter is "
            f"loaded on. Read such a member from its own cache: `diptych oracle ask --acts`."
        )
    if unknown := sorted(named - {"base", *study.members}):
        raise ValueError(f"oracle.sources: {', '.join(unknown)}: expected base or {', '.join(study.members)}.")


def plan(study: Study) -> Work:
    """One pass to collect, and about one per choice and control to read."""
    from study.analyses.estimate import prompt_tokens, size_of
    from study.analyses.items import examples_of

    assert study.oracle is not None
    first, items = next(iter(study.members.values())), examples_of(study, chains=True)
    asked = sum(len(q.choices) for q in study.oracle.questions) * len(study.oracle.sources)
    tokens = prompt_tokens(study, first, items) + 60 * len(items) * asked * 4
    return Work(
        len(items), tokens, 0, 0, size_of(study, first), note=f"{asked} choices, each under 4 kinds of activations"
    )


def files(study: Study) -> dict[str, list[Path]]:
    """Labels of its questions, and the adapters where they are folders, by the words of the section."""
    assert study.oracle is not None
    section = study.oracle
    paths = {q.labels: [Path(q.labels)] for q in section.questions if q.labels is not None}
    for word, folder in zip((section.adapter, section.prior or PRIOR), _adapters(section), strict=True):
        if folder is not None and Path(folder).is_dir():
            paths[word] = sorted(p for p in Path(folder).rglob("*") if p.suffix in (".json", ".safetensors"))
    return paths


def items(study: Study) -> list[Example]:
    """Texts whose activations are read, where a question does not bring readings of its own."""
    from study.analyses.items import examples_of

    assert study.oracle is not None
    return examples_of(study, chains=True) if any(q.readings is None for q in study.oracle.questions) else []


def code(study: Study) -> list[str]:
    """The functions that bring readings."""
    assert study.oracle is not None
    return [q.readings for q in study.oracle.questions if q.readings is not None]


def fits(study: Study, layouts: Layouts) -> Iterator[Fault]:
    """Layers that the base does not have, and positions that are no rules."""
    from interp.positions import parse_positions
    from interp.site import layer_index
    from study.analyses.shapes import tried

    assert study.oracle is not None
    layout = next(iter(layouts.values()))
    for word in study.oracle.layers or ():  # those of the oracle are its own business
        yield from tried("oracle.layers", {"": word}, lambda one: layer_index(one, layout.n_layers))
    for question in study.oracle.questions:
        yield from tried("oracle.questions", {"": question.positions}, parse_positions)


STEP = Step(
    "oracle", run, tables, plan=plan, check=check, files=files, uses_models=True, items=items, code=code, fits=fits
)
