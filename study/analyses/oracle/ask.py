"""An oracle asked about the readings of caches: `diptych oracle ask`, `compare`, `selftest`, and Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from interp.remedy import remedy
from study.analyses.oracle.options import AskOptions, CompareOptions, OracleNames, ReadingOptions
from study.embedded import EMBEDDED
from study.load_options import DeviceOptions

if TYPE_CHECKING:
    from interp.cache import ActivationCache
    from interp.io.items import ItemStore
    from interp.oracle import Features, Oracle, SelfTest
    from interp.prompt import Example
    from study.analyses.oracle.load import SelfTestRecord

    Say = Callable[[str], object]


def load_named(names: OracleNames, device: DeviceOptions, *, seed: int) -> Oracle:
    """The oracle with its weights; raises as `load_oracle`."""
    from study.analyses.oracle.load import load_oracle

    loaded = load_oracle(**asdict(names), loading=asdict(device))
    loaded.seed = seed
    return loaded


def check_cache(cache: Path, options: ReadingOptions) -> None:
    """What can be wrong with a cache, said before any weight is loaded.

    Raises:
        ValueError: a position rule or column that the cache does not have, or several rules and none named.
    """
    from interp.cache import ActivationCache

    opened = ActivationCache.open(cache)
    have = ", ".join(opened.positions)
    if options.positions is None and len(opened.positions) > 1:
        raise ValueError(f"{remedy('{positions}')} is missing: {cache} holds {have}; name one of these.")
    if options.positions is not None and options.positions not in opened.positions:
        named = remedy(f"{{positions:{options.positions}}}")
        raise ValueError(f"{named}: {cache} holds {have}; name one of these.")
    for name, column in (("targets", options.targets), ("group", options.group)):
        if column and column not in opened.examples.columns:
            have = ", ".join(opened.examples.columns)
            raise ValueError(f"{remedy(f'{{{name}:{column}}}')}: not a column of {cache}; it has {have}.")


def features_of(
    oracle: Oracle, cache: ActivationCache, options: ReadingOptions, *, source: str | None = None
) -> Features:
    """The readings of a cache."""
    from interp.oracle import features_from_cache

    feats = features_from_cache(
        cache,
        position=options.positions or cache.positions[0],
        layers=list(options.layers or oracle.spec.layers),
        per=options.per,
        group=options.group,
        source=source,
        n_layers=oracle.model.n_layers,
    )
    return feats.select(feats.items[: options.limit]) if options.limit else feats


def targets_of(cache: ActivationCache, feats: Features, options: ReadingOptions) -> dict[str, str] | None:
    """reading -> right choice, from a column of the cache's examples; None where no column is named."""
    if not options.targets:
        return None
    table = cache.examples
    of = {str(i): str(t) for i, t in zip(table["id"], table[options.targets], strict=True)}
    return {item: of[item if item in of else item.rpartition("@")[0]] for item in feats.items}


def ask(
    names: OracleNames, device: DeviceOptions, options: AskOptions, *, say: Say = print, note: Say = warnings.warn
) -> str:
    """Ask one question of every reading of a cache; tables and figures in `options.out`, returns what is printed.

    Args:
        say: is told what the controls can reach, before anything is asked.
        note: is told where the wiring of the oracle was never tested, or failed its test.
    Raises:
        ValueError: a folder that holds another question; as `check_cache`, `load_oracle`, `Oracle.ask`.
    """
    from interp.cache import ActivationCache
    from study.analyses.oracle.run import reading_store

    check_cache(options.acts, options)
    oracle = load_named(names, device, seed=options.seed)
    cache = ActivationCache.open(options.acts)
    feats = features_of(oracle, cache, options)
    targets = targets_of(cache, feats, options) if options.choices else None
    more = {"controls": ",".join(options.controls), "max_new_tokens": options.max_new_tokens}

    def make() -> str:
        tested = _tested(oracle, names, options, note)
        if options.choices:
            return _choose(oracle, feats, options, targets, tested)
        return _answer(oracle, feats, options, tested, say)

    with reading_store(options.out, oracle, [feats], _asked("ask", options, targets) | more) as store:
        return _once(store, oracle, options, make)


def compare(names: OracleNames, device: DeviceOptions, options: CompareOptions) -> str:
    """The same question at the same places of two caches, with a paired test over problems; as `ask`.

    Raises:
        ValueError: no choices; as `ask`.
    """
    from interp.cache import ActivationCache
    from interp.oracle import compare as compare_readings
    from interp.oracle.evidence import GAP_PARTNERS
    from study.analyses.oracle.run import reading_store, write_comparison

    if not options.choices:
        raise ValueError(remedy("{choices}: a comparison weighs given answers."))
    paths = (options.engaged, options.heuristic)
    for path in paths:
        check_cache(path, options)
    oracle = load_named(names, device, seed=options.seed)
    caches = [ActivationCache.open(path) for path in paths]
    pair = [features_of(oracle, one, options, source=path.name) for one, path in zip(caches, paths, strict=True)]
    called = (options.engaged.name, options.heuristic.name)
    targets = targets_of(caches[0], pair[0], options)

    def make() -> str:
        got = compare_readings(
            oracle,
            pair[0],
            pair[1],
            options.question,
            options.answers,
            names=called,
            seed=options.seed,
            targets=targets,
            n_partners=options.partners or GAP_PARTNERS,
        )
        return write_comparison(options.out, got)

    asked = {**_asked("compare", options, targets), "names": list(called)}
    with reading_store(options.out, oracle, pair, asked) as store:
        return _once(store, oracle, options, make)


def check_wiring(
    names: OracleNames, device: DeviceOptions, *, n: int, seed: int, texts: Sequence[Example] | None = None, limit: int
) -> SelfTest:
    """Whether the declared wiring fits the adapter better than every mistake that still works in part; remembered.

    Args:
        texts: what is read; None for the embedded model's own logs, or plain passages.
    """
    from study.analyses.oracle.load import run_selftest

    oracle = load_named(names, device, seed=seed)
    return run_selftest(oracle, texts or _texts(names, limit), n=n, seed=seed)


def _once(store: ItemStore, oracle: Oracle, options: ReadingOptions, make: Callable[[], str]) -> str:
    """What is printed of a folder's question; asked where it was not."""
    from study.analyses.oracle.run import finish, printed

    known = printed(store)
    if known is not None:
        return f"{options.out} is finished; nothing was asked again.\n\n{known}"
    with oracle.keeping(store):
        text = make()
    return finish(store, text)


def _choose(
    oracle: Oracle,
    feats: Features,
    options: AskOptions,
    targets: Mapping[str, str] | None,
    tested: SelfTestRecord | None,
) -> str:
    from interp.oracle.evidence import GAP_PARTNERS
    from study.analyses.oracle.run import write_choices

    how = {"controls": options.controls, "n_partners": options.partners or GAP_PARTNERS}
    chosen = oracle.choose(feats, options.question, options.answers, **how)
    return write_choices(options.out, chosen, feats, targets, tested)


def _answer(oracle: Oracle, feats: Features, options: AskOptions, tested: SelfTestRecord | None, say: Say) -> str:
    from interp.oracle import Decoding
    from interp.oracle.controls import HEADLINE, partner_counts
    from interp.oracle.evidence import PARTNERS, FewPartnersWarning, reach
    from study.analyses.oracle.run import write_answers

    decoding = Decoding(max_new_tokens=options.max_new_tokens or oracle.spec.max_new_tokens, seed=options.seed)
    n, controls = options.partners or PARTNERS, options.controls
    if HEADLINE in controls:
        say(reach(int(partner_counts(feats, n=n, seed=options.seed).min()), len(feats)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewPartnersWarning)  # the line above says it
        answers = oracle.ask(feats, options.question, decoding=decoding, controls=controls, n_partners=n)
    return write_answers(options.out, answers, tested)


def _asked(command: str, options: ReadingOptions, targets: Mapping[str, str] | None) -> dict[str, object]:
    """What changes an answer to the activations that are read."""
    choices = list(options.answers) if options.choices else None
    same = {"question": options.question, "partners": options.partners, "seed": options.seed}
    return {"command": command, "choices": choices, "targets": targets, **same}


def _tested(oracle: Oracle, names: OracleNames, options: AskOptions, note: Say) -> SelfTestRecord | None:
    """What is known of the wiring; tested now where nothing is, unless that is declined."""
    from study.analyses.oracle.load import remembered, run_selftest

    known = remembered(oracle)
    if known is None and not options.no_selftest:
        note("this oracle's wiring was never tested here; testing it once.")
        run_selftest(oracle, _texts(names, 32), seed=options.seed)
        known = remembered(oracle)
    if known is None or not known["passed"]:
        why = "was never tested" if known is None else f"FAILED its self-test: {known['explanation']}"
        note(f"the wiring of this oracle {why}")
    return known


def _texts(names: OracleNames, limit: int) -> list[Example] | None:
    """Texts of a self-test: the embedded model's own logs, or None for plain passages."""
    if names.model != EMBEDDED:
        return None
    from interp.tasks import procedural

    return list(procedural.examples(None, per_cell=2, seed=1, rendering="log"))[:limit]
