"""Results of an oracle: answers, probabilities of choices and likelihoods, each with its controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.oracle.controls import HEADLINE
from interp.oracle.evidence import NO_CONTROL, Ranks, accuracy_over, rank_answers, verdict
from interp.oracle.scoring import Classified, classified, words
from interp.stats import Estimate, cluster_t, smallest_p

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """NLL of fixed answers under the real activations and under controls, in nats per answer token.

    Attributes:
        items, groups: readings and their problems.
        targets: the scored answers.
        nll: [item], real activations.
        n_tokens: [item], tokens of each answer.
        controls: control -> [repeat, item]; NaN if an item has no partner.
    """

    items: tuple[str, ...]
    groups: tuple[str, ...]
    targets: tuple[str, ...]
    nll: np.ndarray
    n_tokens: np.ndarray
    controls: Mapping[str, np.ndarray] = field(default_factory=dict)

    def gaps(self, control: str = HEADLINE) -> np.ndarray:
        """NLL under the control minus NLL under the real activations [item], mean over repeats; NaN without partner."""
        return _mean_over_repeats(self._under(control)) - self.nll

    def gap(self, control: str = HEADLINE) -> Estimate:
        """Control gap: mean over items of NLL(control) - NLL(real), nats per answer token, interval over problems.

        Above 0 the answers depend on these activations rather than on any similar ones. Undefined with fewer than two
        problems, since there is no variation to estimate.
        """
        gaps = self.gaps(control)
        has_value = ~np.isnan(gaps)
        return mean_over_problems(gaps[has_value], [g for g, k in zip(self.groups, has_value, strict=True) if k])

    def ranks(self) -> Ranks:
        """Rank test of every reading over its matched partners, corrected over these readings.

        Raises:
            ValueError: the matched shuffle was not run.
        """
        return rank_answers(self.nll, self._under(HEADLINE))

    def mean(self, control: str | None = None) -> Estimate:
        """Mean NLL per answer token under the real activations, or under a control."""
        values = self.nll if control is None else _mean_over_repeats(self._under(control))
        has_value = ~np.isnan(values)
        return mean_over_problems(values[has_value], [g for g, k in zip(self.groups, has_value, strict=True) if k])

    def rows(self) -> list[dict[str, Any]]:
        """One row per control: control, mean NLL, gap with interval, n."""
        out = [_row("real", self.mean(), None)]
        return out + [_row(control, self.mean(control), self.gap(control)) for control in self.controls]

    def _under(self, control: str) -> np.ndarray:
        if control not in self.controls:
            have = ", ".join(self.controls) or "none"
            raise ValueError(f"control {control!r} was not run; controls: {have}. Name it in controls=.")
        return self.controls[control]


def answer_ranks(parts: Sequence[Likelihoods]) -> Ranks:
    """Ranks of the answers to all questions together, question by question; no partners where no shuffle was run."""
    real = np.concatenate([part.nll for part in parts])
    under = [part.controls.get(HEADLINE, np.full((1, len(part.items)), np.nan)) for part in parts]
    most = max(map(len, under))
    padded = [np.pad(one, ((0, most - len(one)), (0, 0)), constant_values=np.nan) for one in under]
    return rank_answers(real, np.concatenate(padded, axis=1))


@dataclass(frozen=True)
class Answer:
    """One answer about one reading.

    Attributes:
        text: the answer; of several samples, the most frequent.
        samples: all samples; `frequency` is the share of `text` among them, a confidence.
        logp: log-probability of `text` in nats, `n_tokens` its tokens.
        gap: mean over matched partners of NLL(partner) - NLL(own) of `text`, nats per token; NaN without partner.
        n_partners, p: number of partners, and the rank test over them (`evidence.rank_answers`).
        p_adjusted: corrected over all answers of one `Oracle.ask`.
        verdict: see `evidence.Ranks.verdict`.
        controls: control -> gap of this answer, nats per token.
        null_slots: slots whose vector is too short for a meaningful direction.
        provenance: oracle, adapter, spec, source, layers, tokens.
    """

    item: str
    question: str
    text: str
    samples: tuple[str, ...]
    frequency: float
    logp: float
    n_tokens: int
    gap: float
    n_partners: int
    p: float
    p_adjusted: float
    verdict: str
    controls: Mapping[str, float]
    null_slots: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        likely = f"{self.item}: {self.text!r} (probability {np.exp(self.logp):.2g}"
        if not self.n_partners:
            return f"{likely}; {self.verdict}: no matched partner)"
        tested = f"p {self.p:.3g} over {self.n_partners} partners, {self.p_adjusted:.3g} corrected"
        return f"{likely}; gap {self.gap:.2f} nats/token, {tested}; {self.verdict})"


@dataclass(frozen=True, eq=False)
class Answers(Sequence[Answer]):
    """Answers to one or several questions, in the order of readings, question by question.

    Attributes:
        likelihoods: question -> likelihoods of its answers under every control.
    """

    answers: tuple[Answer, ...]
    likelihoods: Mapping[str, Likelihoods]

    def __getitem__(self, index: Any) -> Any:
        return self.answers[index]

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.answers)

    def to(self, question: str) -> tuple[Answer, ...]:
        """The answers to one question."""
        return tuple(answer for answer in self.answers if answer.question == question)

    def gap(self, question: str | None = None, control: str = HEADLINE) -> Estimate:
        """Control gap of the answers to a question, interval over problems. The answers were chosen under the real
        activations, so the gap is positive whenever the activations affect the answer at all; a target is a stricter
        test.
        """
        return self.likelihoods[self._only(question)].gap(control)

    def same_response_share(self, question: str | None = None) -> float:
        """Share of readings with the most frequent answer; near 1 the oracle gives one answer to everything."""
        texts = [words(answer.text) for answer in self.to(self._only(question))]
        return max(texts.count(text) for text in texts) / len(texts)

    def table(self) -> pd.DataFrame:
        """One row per answer: text, gap, rank test over partners, verdict, every control."""
        import pandas as pd

        return pd.DataFrame([_flat(answer) for answer in self.answers])

    def _only(self, question: str | None) -> str:
        if question is None and len(self.likelihoods) > 1:
            raise ValueError(f"several questions were asked; choose one of {list(self.likelihoods)}.")
        return next(iter(self.likelihoods)) if question is None else question

    def __str__(self) -> str:
        lines = []
        for question in self.likelihoods:
            lines.append(
                f"{question}\n  control gap ({HEADLINE}) {_or_dash(self, question)}, "
                f"same answer to {self.same_response_share(question):.0%}"
            )
            lines += [f"  {answer}" for answer in self.to(question)]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Choices:
    """Probabilities of given answers, from the log-probability of each whole answer.

    Attributes:
        choices: the answers offered.
        logp: [item, choice] nats, real activations.
        controls: control -> [repeat, item, choice].
        phrasings: [item, phrasing] index of the best choice under each phrasing and order.
    """

    items: tuple[str, ...]
    groups: tuple[str, ...]
    question: str
    choices: tuple[str, ...]
    logp: np.ndarray
    n_tokens: np.ndarray
    controls: Mapping[str, np.ndarray] = field(default_factory=dict)
    phrasings: np.ndarray | None = None
    seed: int = 0

    @cached_property
    def p(self) -> np.ndarray:
        """[item, choice]: p(choice) over the choices offered, softmax of whole-answer log-probabilities."""
        weights = np.exp(self.logp - self.logp.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    @cached_property
    def best(self) -> tuple[str, ...]:
        """The most probable choice of each reading; with several phrasings, the mode over them."""
        return tuple(self.choices[i] for i in self._best)

    @cached_property
    def _best(self) -> np.ndarray:
        if self.phrasings is None:
            return self.logp.argmax(axis=1)
        counts = np.stack([(self.phrasings == c).sum(axis=1) for c in range(len(self.choices))], axis=1)
        return (counts + self.p * 0.5).argmax(axis=1)  # ties go to the more probable

    @property
    def frequency(self) -> np.ndarray:
        """[item]: share of phrasings and orders that give `best`, a calibrated confidence; NaN with one phrasing."""
        if self.phrasings is None:
            return np.full(len(self.items), np.nan)
        return (self.phrasings == self._best[:, None]).mean(axis=1)

    def invariance(self) -> Estimate:
        """Mean share of phrasings and option orders that agree with the mode; 1 means wording does not matter."""
        return mean_over_problems(self.frequency[~np.isnan(self.frequency)], self.groups)

    def best_under(self, control: str, repeat: int = 0) -> tuple[str | None, ...]:
        """The most probable choice under a control; None where a reading has no partner."""
        logp = self.controls[control][repeat]
        return tuple(None if np.isnan(row).any() else self.choices[int(row.argmax())] for row in logp)

    def likelihoods(self, targets: Mapping[str, str]) -> Likelihoods:
        """Likelihood of the right choice under real and control activations."""
        at = [self._index(item, targets) for item in self.items]
        rows = np.arange(len(self.items))
        tokens = self.n_tokens[at]
        controls = {name: -values[:, rows, at] / tokens for name, values in self.controls.items()}
        named = tuple(self.choices[i] for i in at)
        return Likelihoods(self.items, self.groups, named, -self.logp[rows, at] / tokens, tokens, controls)

    def grade(self, targets: Mapping[str, str], control: str | None = None) -> Classified:
        """Accuracy, balanced accuracy, macro F1 and majority floor against targets, real or under a control.

        Raises:
            ValueError: a reading without a target, or a target that is not among the choices.
        """
        gold = [self.choices[self._index(item, targets)] for item in self.items]
        if control is None:
            return classified(self.best, gold, groups=self._clusters())
        answers = self.best_under(control)
        answered = [i for i, answer in enumerate(answers) if answer is not None]
        groups = self._clusters()
        chosen = None if groups is None else [groups[i] for i in answered]
        return classified([answers[i] for i in answered], [gold[i] for i in answered], groups=chosen)

    def right(self, targets: Mapping[str, str], control: str | None = None) -> np.ndarray:
        """1 where the best choice is the target, 0 where not, real or under a control; NaN without partner [item]."""
        gold = [self.choices[self._index(item, targets)] for item in self.items]
        answers = self.best if control is None else self.best_under(control)
        return np.array([np.nan if a is None else float(a == t) for a, t in zip(answers, gold, strict=True)])

    def over(self, targets: Mapping[str, str], other: str | np.ndarray) -> Estimate:
        """Accuracy minus that of a control on the same readings, paired, interval over problems.

        Args:
            other: a control that was run, or 0/1 per reading of another source (a probe, the majority) [item].
        """
        theirs = self.right(targets, other) if isinstance(other, str) else other
        return accuracy_over(self.right(targets), theirs, self.groups, seed=self.seed)

    def _clusters(self) -> tuple[str, ...] | None:
        return None if len(set(self.groups)) == len(self.groups) else self.groups

    def _index(self, item: str, targets: Mapping[str, str]) -> int:
        if item not in targets or targets[item] not in self.choices:
            got = targets.get(item, "no target")
            raise ValueError(f"item {item!r}: expected a target among {', '.join(self.choices)}; got {got!r}.")
        return self.choices.index(targets[item])


def _mean_over_repeats(values: np.ndarray) -> np.ndarray:
    has_value = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(has_value, values, 0).sum(axis=0) / np.where(
            has_value.any(axis=0), has_value.sum(axis=0), np.nan
        )


def mean_over_problems(values: np.ndarray, groups: Sequence[str]) -> Estimate:
    """Mean with an interval over problems; undefined within one."""
    n_groups = len(set(groups))
    return cluster_t(values, groups=list(groups)) if n_groups > 1 else Estimate.undefined(len(values), n_groups)


def _row(control: str, nll: Estimate, gap: Estimate | None) -> dict[str, Any]:
    gap = gap or Estimate(0.0, 0.0, 0.0, nll.n, nll.n_groups)
    return {
        "control": control,
        "nll": nll.value,
        "gap": gap.value,
        "lo": gap.lo,
        "hi": gap.hi,
        "n": gap.n,
        "n_groups": gap.n_groups,
    }


def _flat(answer: Answer) -> dict[str, Any]:
    return {
        "item": answer.item,
        "question": answer.question,
        "answer": answer.text,
        "verdict": answer.verdict,
        "logp": answer.logp,
        "n_tokens": answer.n_tokens,
        "frequency": answer.frequency,
        "gap": answer.gap,
        "p": answer.p,
        "p_adjusted": answer.p_adjusted,
        "smallest_p": smallest_p(answer.n_partners),
        "n_partners": answer.n_partners,
        **{f"gap.{name}": value for name, value in answer.controls.items()},
        "null_slots": "; ".join(answer.null_slots),
        **{name: str(value) for name, value in answer.provenance.items()},
    }


def _or_dash(answers: Answers, question: str) -> str:
    if HEADLINE not in answers.likelihoods[question].controls:
        return f"- ({NO_CONTROL})"
    gap = answers.gap(question)
    return f"{gap} nats/token: {verdict(gap)}"
