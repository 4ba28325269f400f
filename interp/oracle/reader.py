"""The oracle: questions about activations, answered by an adapter, every answer with its controls."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from torch import nn

from interp.io.items import ItemStore
from interp.model import Model
from interp.oracle.answers import Answer, Answers, Choices, Likelihoods, answer_ranks
from interp.oracle.controls import HEADLINE, READER_CONTROLS, VECTOR_CONTROLS, partner_counts, variants
from interp.oracle.engine import TOKENS_PER_BATCH, Decoding, answer_logp, generate
from interp.oracle.evidence import ALPHA, GAP_PARTNERS, PARTNERS, FewPartnersWarning, Ranks, reach
from interp.oracle.features import Features, warn_off_distribution, warn_other_base
from interp.oracle.jobs import Case, Job, Kept, Prompts
from interp.oracle.prompt import check_choices, phrasings_of
from interp.oracle.scoring import mode_frequency
from interp.oracle.spec import OracleSpec
from interp.progress import parts, stage, track
from interp.stats import rejects, smallest_p


@dataclass(frozen=True)
class _Controls:
    """The controls of one call, and whether the end of the turn is scored as part of an answer."""

    names: Sequence[str]
    n_partners: int
    tasks: Mapping[str, str] | None
    end_of_turn: bool = False

    @property
    def n_passes(self) -> list[float]:
        """Passes over the readings of each control, at most."""
        return [float(self.n_partners if name in ("shuffled", "gaussian") else 1) for name in self.names]


@dataclass(frozen=True)
class _Asked:
    """Answers to one question: samples of each reading, their mode with its frequency, likelihoods of the modes."""

    question: str
    samples: list[tuple[str, ...]]
    modes: list[tuple[str, float]]
    likelihoods: Likelihoods


class Oracle:
    """An oracle adapter on its base model.

        oracle = Oracle(model, adapter="oracle", spec=OracleSpec.infer("path/of/the/adapter"))
        answers = oracle.ask(feats, "What is the model thinking about?")

    Args:
        model: base with the oracle's adapter loaded under a role; any adapter may be active.
        adapter: role of the oracle; None reads with the bare base (patchscopes).
        spec: how it is wired; None assumes the original's wiring, with a warning.
        prior: role of an oracle that was trained on zeroed activations, the floor of any accuracy.
        seed: seed of partners, noise and samples.
        tokens_per_batch: largest number of tokens in one forward pass.
        share: run the activations of a reading once for all questions and answers.
    Raises:
        ValueError: the role is not loaded, or the model has no such block.
    """

    def __init__(
        self,
        model: Model | nn.Module,
        *,
        adapter: str | None = "oracle",
        spec: OracleSpec | None = None,
        prior: str | None = None,
        seed: int = 0,
        tokens_per_batch: int = TOKENS_PER_BATCH,
        share: bool = True,
    ) -> None:
        self.model = Model.wrap(model)
        self.spec = spec or OracleSpec.infer(None, self.model)
        self.adapter, self.prior = adapter, prior
        self.seed, self.tokens_per_batch, self.share = seed, tokens_per_batch, share
        for role in (adapter, prior):
            if role is not None and role not in self.model.adapters.names:
                names = ", ".join(self.model.adapters.names) or "none"
                raise ValueError(f"oracle adapter {role!r} is not loaded; adapters of the model: {names}.")
        if self.spec.hook_layer >= self.model.n_layers:
            raise ValueError(
                f"spec.hook_layer: expected 0-{self.model.n_layers - 1} ({self.model.name} has {self.model.n_layers} "
                f"blocks), got {self.spec.hook_layer}."
            )
        self._prompts = Prompts(self.spec, self.model.tokenizer)
        self._store: ItemStore | None = None
        warn_other_base(self.spec, self.model)

    def rewired(self, spec: OracleSpec) -> Oracle:
        """The same adapter on the same model under another spec, for the self-test."""
        return Oracle(
            self.model,
            adapter=self.adapter,
            spec=replace(spec, origin="assumed"),
            prior=self.prior,
            seed=self.seed,
            tokens_per_batch=self.tokens_per_batch,
            share=self.share,
        )

    @contextmanager
    def keeping(self, store: ItemStore) -> Iterator[None]:
        """Store the outcome of every batch in `store`, and reuse outcomes that are already in it. Use one store per
        call of the oracle."""
        self._store = store
        try:
            yield
        finally:
            self._store = None

    def _kept(self, role: str | None) -> Kept | None:
        return None if self._store is None else Kept(self._store, role)

    def ask(
        self,
        feats: Features,
        questions: str | Sequence[str],
        *,
        decoding: Decoding | None = None,
        controls: Sequence[str] = (HEADLINE,),
        n_partners: int = PARTNERS,
        tasks: Mapping[str, str] | None = None,
    ) -> Answers:
        """Answer questions about every reading, and measure how much each answer depends on the activations.

        All questions continue from one prefill of the activations. The answer's log-probability is then computed under
        each control; the gap of an answer is NLL(control) - NLL(real) per token. A single answer counts as read if its
        rank among its partners survives the correction over all answers (`evidence.rank_answers`).

        Args:
            decoding: default greedy, `spec.max_new_tokens` long; with n > 1 the text is the most frequent answer.
            controls: names of controls (`interp.oracle.controls`); the matched shuffle is the headline.
            n_partners: partners of the matched shuffle per reading; the smallest p of an answer is 1/(1 + partners).
            tasks: reading -> task, if matched partners must share it.
        Raises:
            ValueError: unknown control or features of another width, before any forward pass.
        Warns:
            FewPartnersWarning: too few partners for any single answer to be called read, before any forward pass.

        Example:
            >>> from interp import Example
            >>> from interp.oracle import Decoding, collect
            >>> items = [Example(f"i{k}", text=f"the quick fox {k}") for k in range(4)]
            >>> feats = collect(model, items, layers=[1])["base"]
            >>> oracle = Oracle(model, adapter=None, spec=OracleSpec(layers=(1,)))  # a trained adapter has a role
            >>> answers = oracle.ask(feats, "What is this about?", decoding=Decoding(max_new_tokens=2))
            >>> [(answer.item, answer.n_partners) for answer in answers]
            [('i0', 3), ('i1', 3), ('i2', 3), ('i3', 3)]
        """
        questions = [questions] if isinstance(questions, str) else list(questions)
        self._check(feats, controls)
        if HEADLINE in controls:
            self._warn_few(feats, n_partners, tasks, len(questions))
        decoding = decoding or Decoding(max_new_tokens=self.spec.max_new_tokens, seed=self.seed)
        jobs = [self._prompts.of(feats, item, question) for question in questions for item in feats.items]
        run, n = _Controls(controls, n_partners, tasks), len(feats)
        n_passes = 1 + round(sum(run.n_passes))
        with track("oracle", (1 + n_passes) * len(questions), unit="passes over the readings") as bar:
            with bar.step(len(questions)), self.model.adapters.use(self.adapter):
                kept, budget = self._kept(self.adapter), self.tokens_per_batch
                ids = generate(self.model, jobs, self.spec, decoding, share=self.share, budget=budget, kept=kept)
            asked = []
            for k, question in enumerate(questions):
                with bar.step(n_passes):
                    asked.append(self._asked(feats, question, ids[k * n : (k + 1) * n], run))
        ranks = answer_ranks([part.likelihoods for part in asked])
        answers = [a for k, part in enumerate(asked) for a in self._answers(feats, part, ranks, k * n)]
        return Answers(tuple(answers), {part.question: part.likelihoods for part in asked})

    def _asked(
        self, feats: Features, question: str, ids: Sequence[Sequence[tuple[int, ...]]], controls: _Controls
    ) -> _Asked:
        """Texts of one question's answers, with their likelihoods under every control."""
        samples = [tuple(self._text(sample) for sample in of) for of in ids]
        modes = [mode_frequency(texts) for texts in samples]
        chosen = [of[texts.index(text)] for of, texts, (text, _) in zip(ids, samples, modes, strict=True)]
        cases = [Case(item, question, answer) for item, answer in zip(feats.items, chosen, strict=True)]
        return _Asked(question, samples, modes, self._score(feats, cases, tuple(text for text, _ in modes), controls))

    def _warn_few(self, feats: Features, n: int, tasks: Mapping[str, str] | None, n_questions: int) -> None:
        least = int(partner_counts(feats, n=n, seed=self.seed, tasks=tasks).min())
        if not rejects(smallest_p(least), alpha=ALPHA):
            warnings.warn(reach(least, n_questions * len(feats)), FewPartnersWarning, stacklevel=3)

    def score(
        self,
        feats: Features,
        question: str | Mapping[str, str],
        targets: Mapping[str, str],
        *,
        controls: Sequence[str] = (HEADLINE,),
        n_partners: int = GAP_PARTNERS,
        tasks: Mapping[str, str] | None = None,
        end_of_turn: bool = False,
    ) -> Likelihoods:
        """NLL of given answers per token, real and under controls; more sensitive than exact match.

        Args:
            question: one for all readings, or reading -> question.
            targets: reading -> answer.
            end_of_turn: count the end of the turn as part of the answer, as training does.
        Raises:
            ValueError: a reading has no target, or an answer merges with the prompt.
        """
        self._check(feats, controls)
        missing = [item for item in feats.items if item not in targets]
        if missing:
            raise ValueError(f"targets: {len(missing)} readings have none, e.g. {missing[0]!r}.")
        question_of = {item: question if isinstance(question, str) else question[item] for item in feats.items}
        cases = [Case(item, question_of[item], targets[item]) for item in feats.items]
        answers = tuple(targets[item] for item in feats.items)
        with track("oracle", 1, unit="questions") as bar, bar.step():
            return self._score(feats, cases, answers, _Controls(controls, n_partners, tasks, end_of_turn))

    def _score(
        self, feats: Features, cases: Sequence[Case], answers: tuple[str, ...], controls: _Controls
    ) -> Likelihoods:
        share = 1 / (1 + sum(controls.n_passes))
        with stage(0, share):
            real, n_tokens = self._logp(feats, cases, self.adapter, controls.end_of_turn)
        with stage(share, 1):
            names = parts(controls.names, work=controls.n_passes)
            under = {name: -self._under(feats, cases, name, controls) / n_tokens for name in names}
        groups = tuple(feats.group(item) for item in feats.items)
        return Likelihoods(feats.items, groups, answers, -real / n_tokens, n_tokens, under)

    def choose(
        self,
        feats: Features,
        question: str,
        choices: Sequence[str],
        *,
        controls: Sequence[str] = (HEADLINE,),
        n_partners: int = GAP_PARTNERS,
        paraphrases: Sequence[str] = (),
        n_orders: int = 1,
        tasks: Mapping[str, str] | None = None,
        end_of_turn: bool = False,
    ) -> Choices:
        """Probability of each of the given answers, from the log-probability of its whole token sequence.

        Args:
            question: may contain "{choices}", which is replaced by the choices.
            paraphrases: other wordings; together with `n_orders` orders of the choices they give the agreement that
                is reported as a calibrated confidence.
            end_of_turn: count the end of the turn; needed if one choice is a prefix of another.
        Raises:
            ValueError: fewer than two choices, a choice that is a prefix of another, or several orders for a question
                without "{choices}".
        """
        self._check(feats, controls)
        check_choices(self.model.tokenizer, question, choices, n_orders, end_of_turn)
        phrasings = phrasings_of((question, *paraphrases), choices, n_orders, self.seed)
        cases = [Case(item, phrasings[0], choice) for item in feats.items for choice in choices]
        shape = (len(feats.items), len(choices))
        run = _Controls(controls, n_partners, tasks, end_of_turn)
        work = [1.0, *run.n_passes]
        with track("oracle", round(sum(work)) + len(phrasings) - 1, unit="passes over the readings") as bar:
            with bar.step():
                real, n_tokens = self._logp(feats, cases, self.adapter, end_of_turn)
            under = {}
            for name, n in zip(controls, run.n_passes, strict=True):
                with bar.step(round(n)):
                    under[name] = self._under(feats, cases, name, run).reshape(-1, *shape)
            with bar.step(len(phrasings) - 1):
                agreed = self._phrasings(feats, phrasings, choices, real.reshape(shape), end_of_turn)
        return Choices(
            items=feats.items,
            groups=tuple(feats.group(item) for item in feats.items),
            question=question,
            choices=tuple(choices),
            logp=real.reshape(shape),
            n_tokens=n_tokens.reshape(shape)[0],
            controls=under,
            phrasings=agreed,
            seed=self.seed,
        )

    def _phrasings(
        self, feats: Features, phrasings: list[str], choices: Sequence[str], first: np.ndarray, end_of_turn: bool
    ) -> np.ndarray | None:
        """[item, phrasing]: index of the best choice under every wording and order; None if there is only one."""
        if len(phrasings) == 1:
            return None
        cases = [Case(i, q, c) for q, i, c in product(phrasings[1:], feats.items, choices)]
        logp, _ = self._logp(feats, cases, self.adapter, end_of_turn)
        others = logp.reshape(len(phrasings) - 1, len(feats.items), len(choices)).argmax(axis=2)
        return np.concatenate([first.argmax(axis=1)[:, None], others.T], axis=1)

    def _answers(self, feats: Features, part: _Asked, ranks: Ranks, first: int) -> list[Answer]:
        """Answers to one question; `first` is the index of its first reading in `ranks`."""
        null, out, likely = set(feats.null_slots), [], part.likelihoods
        gaps = {control: likely.gaps(control) for control in likely.controls}
        for i, item in enumerate(feats.items):
            rows = feats.rows(item)
            out.append(
                Answer(
                    item=item,
                    question=part.question,
                    text=part.modes[i][0],
                    samples=part.samples[i],
                    frequency=part.modes[i][1],
                    logp=float(-likely.nll[i] * likely.n_tokens[i]),
                    n_tokens=int(likely.n_tokens[i]),
                    gap=float(gaps[HEADLINE][i]) if HEADLINE in gaps else float("nan"),
                    n_partners=int(ranks.n_partners[first + i]),
                    p=float(ranks.p[first + i]),
                    p_adjusted=float(ranks.p_adjusted[first + i]),
                    verdict=ranks.verdict(first + i),
                    controls={control: float(values[i]) for control, values in gaps.items()},
                    null_slots=tuple(str(feats.slots[row]) for row in rows if row in null),
                    provenance=self._provenance(feats, item),
                )
            )
        return out

    def _provenance(self, feats: Features, item: str) -> dict[str, Any]:
        slots = [feats.slots[row] for row in feats.rows(item)]
        return {
            "source": slots[0].source,
            "layers": "+".join(map(str, feats.layers(item))),
            "tokens": "+".join(str(slot.token) for slot in slots[: feats.counts(item)[0]]),
            "problem": feats.group(item),
            "oracle": self.adapter,
            "spec": self.spec.origin,
        }

    def _logp(
        self, feats: Features, cases: Sequence[Case], role: str | None, end_of_turn: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """(log-probability in nats, number of tokens) of every case's answer."""
        return self._sums([self._prompts.of_case(feats, case, end_of_turn) for case in cases], role)

    def _under(self, feats: Features, cases: Sequence[Case], control: str, run: _Controls) -> np.ndarray:
        """[repeat, case] log-probabilities under a control; NaN where the control has no vectors for a reading."""
        if control in ("no_adapter", "prior"):
            role = self.prior if control == "prior" else None
            return self._logp(feats, cases, role, run.end_of_turn)[0][None]
        if control == "text_only":  # the bare base reads the text itself and gets the same question
            return self._sums([self._prompts.of_text(feats, case, run.end_of_turn) for case in cases], None)[0][None]
        rows = []
        for variant in parts(variants(feats, control, n=run.n_partners, seed=self.seed, tasks=run.tasks)):
            paired = [i for i, case in enumerate(cases) if case.item in variant.feats.items_set]
            row = np.full(len(cases), np.nan)
            row[paired] = self._logp(variant.feats, [cases[i] for i in paired], self.adapter, run.end_of_turn)[0]
            rows.append(row)
        return np.stack(rows) if rows else np.full((1, len(cases)), np.nan)

    def _sums(self, jobs: Sequence[Job], role: str | None) -> tuple[np.ndarray, np.ndarray]:
        """(summed log-probability, number of tokens) of every job's answer under an adapter; sums are in float64."""
        with self.model.adapters.use(role):
            kept, budget = self._kept(role), self.tokens_per_batch
            logps = answer_logp(self.model, jobs, self.spec, share=self.share, budget=budget, kept=kept)
        return np.array([float(logp.double().sum()) for logp in logps]), np.array([len(logp) for logp in logps])

    def _text(self, ids: Sequence[int]) -> str:
        return self.model.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _check(self, feats: Features, controls: Sequence[str]) -> None:
        self._prompts.forget()
        names = (*VECTOR_CONTROLS, *READER_CONTROLS)
        for control in controls:
            if control not in names:
                raise ValueError(f"control {control!r}: expected some of {', '.join(names)}.")
        if "prior" in controls and self.prior is None:
            raise ValueError("control 'prior' needs an oracle trained on zeroed activations: Oracle(..., prior=role).")
        if "text_only" in controls and any(item not in feats.texts for item in feats.items):
            raise ValueError("control 'text_only' needs the texts of the readings: Features(..., texts=...).")
        if feats.d_model != self.model.d_model:
            raise ValueError(
                f"features: expected d_model {self.model.d_model} of the oracle's base {self.model.name}, got "
                f"{feats.d_model} (source {feats.slots[0].source!r}). An oracle reads activations of its own base."
            )
        warn_off_distribution(feats, self.spec, self.model)
