"""The wiring self-test: the declared spec compared with mistakes that only lower the oracle's accuracy a little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from interp.model import Model
from interp.oracle.answers import Likelihoods, mean_over_problems
from interp.oracle.collection import BASE, TOKENS_PER_BATCH, Reading, features_of, read_activations
from interp.oracle.features import Features
from interp.oracle.prompt import render_prefix, render_question
from interp.oracle.reader import Oracle
from interp.oracle.spec import OracleSpec
from interp.prompt import Example, render
from interp.stats import Estimate

PREVIOUS = "Can you predict the previous {} tokens that came before this?"
NEXT = "Can you predict the next {} tokens that come after this?"
N_ITEMS = 64
MIN_ITEMS = 16


@dataclass(frozen=True, eq=False)
class ContextItems:
    """Context-prediction items: their answers are tokens of the text itself, so they need no labels.

    Attributes:
        feats:  source layer -> features of the same readings at that layer.
        questions, targets: reading -> question, answer.
    """

    feats: Mapping[int, Features]
    questions: Mapping[str, str]
    targets: Mapping[str, str]


@dataclass(frozen=True)
class Wiring:
    """One alternative wiring.

    Attributes:
        nll: mean NLL per answer token, nats, interval over problems.
        worse: NLL of this wiring minus that of the declared one, paired; above 0 where the declared one is better.
    """

    name: str
    nll: Estimate
    worse: Estimate


@dataclass(frozen=True)
class SelfTest:
    """Result of the self-test.

    Attributes:
        declared: NLL under the declared spec.
        wirings: the alternatives.
        zero_gap: NLL with nothing injected minus NLL under the declared spec; must lie above 0.
    """

    spec: OracleSpec
    declared: Estimate
    wirings: tuple[Wiring, ...]
    zero_gap: Estimate

    @property
    def best(self) -> str:
        """The wiring with the least NLL."""
        return min(
            (("declared", self.declared.value), *((w.name, w.nll.value) for w in self.wirings)), key=lambda p: p[1]
        )[0]

    @property
    def passed(self) -> bool:
        """The declared spec has the least NLL of all, and injecting nothing is worse with the whole interval."""
        return self.best == "declared" and self.zero_gap.lo > 0

    @property
    def explanation(self) -> str:
        if self.passed:
            return "the declared wiring ranks first"
        if self.best != "declared":
            rival = next(w for w in self.wirings if w.name == self.best)
            clear = "clearly" if rival.worse.hi < 0 else "by less than its interval"
            return (
                f"{self.best!r} fits the adapter better than the declared spec, {clear}: NLL "
                f"{rival.nll.value:.3f} against {self.declared.value:.3f} nats/token. Correct the spec before "
                "you use any answer."
            )
        return (
            f"injecting nothing is as good as the declared wiring (gap {self.zero_gap}): the adapter does not "
            "read the injected vectors. It is not an oracle, or none of the tested wirings is right."
        )

    def rows(self) -> list[dict[str, object]]:
        """One row per wiring: name, NLL with interval, paired difference from the declared one with interval."""
        out = [_row("declared", self.declared, Estimate(0.0, 0.0, 0.0, self.declared.n, self.declared.n_groups))]
        return out + [_row(w.name, w.nll, w.worse) for w in self.wirings]

    def __str__(self) -> str:
        head = f"{'PASSED' if self.passed else 'FAILED'}: {self.explanation}"
        lines = [f"  {'declared':<18} {self.declared}", f"  {'zero - declared':<18} {self.zero_gap}"]
        return "\n".join([head, *lines, *(f"  {w.name:<18} {w.nll}  worse by {w.worse}" for w in self.wirings)])


def alternatives(spec: OracleSpec, *, layer: int, n_layers: int) -> dict[str, tuple[OracleSpec, int]]:
    """name -> (spec, source layer) of the wirings to rule out.

    Block +-1, the other formulas, coefficient * {1/2, 2, -1}, other prompt formats, source layer +-1.
    """
    c = spec.coefficient
    out = {
        f"block {b}": replace(spec, hook_layer=b)
        for b in (spec.hook_layer - 1, spec.hook_layer + 1)
        if 0 <= b < n_layers
    }
    out |= {f: replace(spec, formula=f) for f in ("add", "replace", "raw") if f != spec.formula}
    out |= {f"coefficient {x:g}": replace(spec, coefficient=x) for x in (c / 2, 2 * c, -c)}
    if spec.formula != "add" or c != 1:  # the original wiring, which an undeclared spec is assumed to have
        out["add, coefficient 1"] = replace(spec, formula="add", coefficient=1.0)
    for other in ("A", "B", "D"):
        trial = replace(spec, format=other, placeholder=spec.placeholders[0], flat=False)
        if _text(trial, layer) != _text(spec, layer):  # A and D are equal for one layer and one position
            out[f"format {other}"] = trial
    named = {name: (other, layer) for name, other in out.items()}
    near = {f"source layer {s}": (spec, s) for s in (layer - 1, layer + 1) if 0 <= s < n_layers}
    return named | near


def selftest(oracle: Oracle, items: ContextItems, *, layer: int) -> SelfTest:
    """NLL of the items under the declared spec and under every alternative, paired by item.

    Args:
        items: items from `context_items`, with features of `layer`; features of neighbouring layers test a wrong source
            layer.
        layer: the source layer under test.
    Raises:
        ValueError: fewer than 16 items, or no features of `layer`.
    """
    if layer not in items.feats or len(items.feats[layer]) < MIN_ITEMS:
        n = len(items.feats[layer]) if layer in items.feats else 0
        raise ValueError(f"self-test: expected at least {MIN_ITEMS} items at layer {layer}, got {n}.")
    real = _nll(oracle, oracle.spec, items, items.feats[layer], controls=("zero",))
    wirings = []
    for name, (spec, source) in alternatives(oracle.spec, layer=layer, n_layers=oracle.model.n_layers).items():
        if source in items.feats and _fits(oracle, spec, layer):
            # slots keep the declared layer's number: a wrong layer's vectors come under the name in the prompt
            feats = items.feats[layer].with_vectors(items.feats[source].vectors)
            other = _nll(oracle, spec, items, feats)
            worse = mean_over_problems(other.nll - real.nll, real.groups)
            wirings.append(Wiring(name, other.mean(), worse))
    return SelfTest(oracle.spec, real.mean(), tuple(wirings), real.gap("zero"))


def context_items(
    model: Model,
    examples: Sequence[Example],
    *,
    layer: int,
    n: int = N_ITEMS,
    n_tokens: tuple[int, int] = (1, 5),
    neighbours: bool = True,
    group: str | None = None,
    thinking: bool | None = None,
    seed: int = 0,
) -> ContextItems:
    """Context-prediction items from any examples: one position each, with a question about the tokens before or after.

    Args:
        layer: source layer; with `neighbours` the blocks below and above are read too.
        n: largest number of items; two items never share a position of one example.
        n_tokens: smallest and largest number of tokens to predict.
    Raises:
        ValueError: every text is too short for an item.
    """
    rng = Random(f"{seed}/context")
    prompts = [(example, render(example, model.tokenizer, thinking=thinking)) for example in examples]
    slots = [(e, p, t) for e, p in prompts for t in range(n_tokens[1], len(p.ids) - n_tokens[1])]
    if not slots:
        raise ValueError(f"self-test: expected a text of {2 * n_tokens[1] + 1} tokens or more; all are shorter.")
    readings, questions, targets = [], {}, {}
    for example, prompt, token in rng.sample(slots, min(n, len(slots))):
        k, is_next = rng.randint(*n_tokens), rng.random() < 0.5
        ids = prompt.ids[token + 1 : token + 1 + k] if is_next else prompt.ids[token - k : token]
        item = f"{example.id}@{token}"
        target = model.tokenizer.decode(ids).strip()
        if target:
            readings.append(Reading(item, example, prompt, (token,), "context"))
            questions[item], targets[item] = (NEXT if is_next else PREVIOUS).format(k), target
    layers = [x for x in ((layer - 1, layer, layer + 1) if neighbours else (layer,)) if 0 <= x < model.n_layers]
    acts = read_activations(model, readings, [None], layers, TOKENS_PER_BATCH)[None]
    feats = {
        x: features_of(readings, [a[i : i + 1] for a in acts], [layer], source=BASE, group=group)
        for i, x in enumerate(layers)
    }
    return ContextItems(feats, questions, targets)


def _fits(oracle: Oracle, spec: OracleSpec, layer: int) -> bool:
    """Whether the spec's prompt fits the tokenizer; an alternative that does not fit is left out."""
    try:
        render_question(spec, oracle.model.tokenizer, layers=[layer], counts=[1], question="?")
    except ValueError:
        return False
    return True


def _nll(
    oracle: Oracle, spec: OracleSpec, items: ContextItems, feats: Features, *, controls: Sequence[str] = ()
) -> Likelihoods:
    return oracle.rewired(spec).score(feats, items.questions, items.targets, controls=controls, end_of_turn=True)


def _text(spec: OracleSpec, layer: int) -> str:
    return render_prefix(spec.format, spec.placeholders[:1], layers=[layer], counts=[1], flat=spec.flat).text


def _row(name: str, nll: Estimate, worse: Estimate) -> dict[str, object]:
    return {
        "wiring": name,
        "nll": nll.value,
        "nll_lo": nll.lo,
        "nll_hi": nll.hi,
        "worse": worse.value,
        "lo": worse.lo,
        "hi": worse.hi,
        "n": worse.n,
        "n_groups": worse.n_groups,
    }
