"""The reader: questions about activations, answered by an oracle adapter, with controls run beside every answer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor, nn

from interp.io.items import ItemStore
from interp.model import Model
from interp.oracle.answers import Answer, Answers, Choices, Likelihoods, answer_ranks
from interp.oracle.caveats import warn_off_distribution, warn_other_base
from interp.oracle.controls import HEADLINE, READER_CONTROLS, VECTOR_CONTROLS, partner_counts, variants
from interp.oracle.engine import TOKENS_PER_BATCH, Decoding, answer_logp, generate
from interp.oracle.evidence import ALPHA, GAP_PARTNERS, PARTNERS, FewPartnersWarning, Ranks, reach
from interp.oracle.features import Features
from interp.oracle.jobs import Case, Job, Prompts
from interp.oracle.kept import Kept
from interp.oracle.phrasings import check_choices, phrasings_of
from interp.oracle.scoring import mode_frequency
from interp.oracle.spec import OracleSpec
from interp.stats import rejects, smallest_p

_Answered: TypeAlias = tuple[str, list[tuple[str, ...]], list[tuple[str, float]], Likelihoods]
"""Question, samples of each reading, its answer with its frequency, and likelihoods of the answers."""


class Oracle:
    """An oracle adapter on its base model.

        oracle = Oracle(model, adapter="oracle", spec=OracleSpec.infer("path/of/the/adapter"))
        answers = oracle.ask(feats, "What is the model thinking about?")

    Args:
        model: base with the oracle's adapter loaded under a role; which adapter is active does not matter.
        adapter: role of the oracle; None reads with the bare base (patchscopes).
        spec: how it is wired; None infers it, loudly.
        prior: role of an oracle that was trained on zeroed activations, the floor of any accuracy.
        seed: of partners, noise and samples.
        tokens_per_batch: of one forward pass.
        share: run the activations of a reading once for all questions and answers.
    Raises:
        ValueError: a role that is not loaded, a block that the model does not have.
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
                known = ", ".join(self.model.adapters.names) or "none"
                raise ValueError(f"oracle adapter {role!r} is not loaded; adapters of the model: {known}.")
        if self.spec.hook_layer >= self.model.n_layers:
            raise ValueError(f"spec: block {self.spec.hook_layer} of a model with {self.model.n_layers} blocks.")
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
        """Keep the outcome of every batch in `store`, and take those that are in it; one reading per store."""
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
        """Answer questions about every reading, each answer with how much it depends on these activations.

        Every question goes on from one prefill of the activations. The answer's log-probability is then taken again
        under each control; the gap of an answer is NLL(control) - NLL(real) per token. A single answer counts as read
        where its rank among its partners survives the correction over all answers (`evidence.rank_answers`).

        Args:
            decoding: greedy, `spec.max_new_tokens` long, by default; with n > 1 the text is the most frequent answer.
            controls: of `interp.oracle.controls`; the matched shuffle is the headline.
            n_partners: partners of the matched shuffle per reading; the smallest p of an answer is 1/(1 + partners).
            tasks: reading -> task, where matched partners must share it.
        Raises:
            ValueError: an unknown control, features of another width, before anything is run.
        Warns:
            FewPartnersWarning: so few partners that no single answer can be called read, before anything is run.
        """
        asked = [questions] if isinstance(questions, str) else list(questions)
        self._check(feats, controls)
        if HEADLINE in controls:
            self._warn_few(feats, n_partners, tasks, len(asked))
        decoding = decoding or Decoding(max_new_tokens=self.spec.max_new_tokens, seed=self.seed)
        jobs = [self._prompts.of(feats, item, question) for question in asked for item in feats.items]
        with self.model.adapters.use(self.adapter):
            made = generate(
                self.model, jobs, self.spec, decoding, share=self.share, budget=self.tokens_per_batch,
                kept=self._kept(self.adapter),
            )  # fmt: skip
        parts = [
            self._answered(feats, question, made[k * len(feats) : (k + 1) * len(feats)], controls, n_partners, tasks)
            for k, question in enumerate(asked)
        ]
        ranks = answer_ranks([found for *_, found in parts])
        answers = [a for k, part in enumerate(parts) for a in self._answers(feats, part, ranks, k * len(feats))]
        return Answers(tuple(answers), {question: found for question, _, _, found in parts})

    def _answered(
        self,
        feats: Features,
        question: str,
        ids: Sequence[Sequence[tuple[int, ...]]],
        controls: Sequence[str],
        n_partners: int,
        tasks: Mapping[str, str] | None,
    ) -> _Answered:
        """Texts of one question with their likelihoods under every control."""
        said = [tuple(self._text(one) for one in of) for of in ids]
        best = [mode_frequency(texts) for texts in said]
        chosen = [of[texts.index(text)] for of, texts, (text, _) in zip(ids, said, best, strict=True)]
        cases = [Case(item, question, one) for item, one in zip(feats.items, chosen, strict=True)]
        texts = tuple(text for text, _ in best)
        return question, said, best, self._score(feats, cases, texts, controls, n_partners, tasks, False)

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
        """NLL of given answers per token, real and under controls: what moves when exact match cannot.

        Args:
            question: one for all readings, or reading -> question.
            targets: reading -> answer.
            end_of_turn: count the end of the turn as part of the answer, as training does.
        Raises:
            ValueError: a reading without a target, an answer that merges with the prompt.
        """
        self._check(feats, controls)
        missing = [item for item in feats.items if item not in targets]
        if missing:
            raise ValueError(f"targets: {len(missing)} readings have none, e.g. {missing[0]!r}.")
        asked = {item: question if isinstance(question, str) else question[item] for item in feats.items}
        cases = [Case(item, asked[item], targets[item]) for item in feats.items]
        said = tuple(targets[item] for item in feats.items)
        return self._score(feats, cases, said, controls, n_partners, tasks, end_of_turn)

    def _score(
        self,
        feats: Features,
        cases: Sequence[Case],
        said: tuple[str, ...],
        controls: Sequence[str],
        n_partners: int,
        tasks: Mapping[str, str] | None,
        end_of_turn: bool,
    ) -> Likelihoods:
        real, n_tokens = self._logp(feats, cases, self.adapter, end_of_turn)
        under = {
            control: -self._under(feats, cases, control, n_partners, tasks, end_of_turn) / n_tokens
            for control in controls
        }
        groups = tuple(feats.group(item) for item in feats.items)
        return Likelihoods(feats.items, groups, said, -real / n_tokens, n_tokens, under)

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
            question: may hold "{choices}", which is replaced by the choices.
            paraphrases: other wordings; together with `n_orders` orders of the choices they give the agreement that
                is reported as a calibrated confidence.
            end_of_turn: count the end of the turn, needed where one choice is the beginning of another.
        Raises:
            ValueError: fewer than two choices, a choice that begins another, orders without "{choices}".
        """
        self._check(feats, controls)
        check_choices(self.model.tokenizer, question, choices, n_orders, end_of_turn)
        phrasings = phrasings_of((question, *paraphrases), choices, n_orders, self.seed)
        cases = [Case(item, phrasings[0], choice) for item in feats.items for choice in choices]
        shape = (len(feats.items), len(choices))
        real, n_tokens = self._logp(feats, cases, self.adapter, end_of_turn)
        under = {
            control: self._under(feats, cases, control, n_partners, tasks, end_of_turn).reshape(-1, *shape)
            for control in controls
        }
        return Choices(
            items=feats.items,
            groups=tuple(feats.group(item) for item in feats.items),
            question=question,
            choices=tuple(choices),
            logp=real.reshape(shape),
            n_tokens=n_tokens.reshape(shape)[0],
            controls=under,
            phrasings=self._phrasings(feats, phrasings, choices, real.reshape(shape), end_of_turn),
            seed=self.seed,
        )

    def _phrasings(
        self, feats: Features, phrasings: list[str], choices: Sequence[str], first: np.ndarray, end_of_turn: bool
    ) -> np.ndarray | None:
        """[item, phrasing]: the best choice under every wording and order; None where there is only one."""
        if len(phrasings) == 1:
            return None
        cases = [Case(i, q, c) for q, i, c in product(phrasings[1:], feats.items, choices)]
        logp, _ = self._logp(feats, cases, self.adapter, end_of_turn)
        others = logp.reshape(len(phrasings) - 1, len(feats.items), len(choices)).argmax(axis=2)
        return np.concatenate([first.argmax(axis=1)[:, None], others.T], axis=1)

    def _answers(self, feats: Features, part: _Answered, ranks: Ranks, first: int) -> list[Answer]:
        """Answers to one question; `first` is the place of its first reading in `ranks`."""
        question, samples, best, found = part
        null, out = set(feats.null_slots), []
        gaps = {control: found.gaps(control) for control in found.controls}
        for i, item in enumerate(feats.items):
            rows = feats.rows(item)
            out.append(
                Answer(
                    item=item,
                    question=question,
                    text=best[i][0],
                    samples=samples[i],
                    frequency=best[i][1],
                    logp=float(-found.nll[i] * found.n_tokens[i]),
                    n_tokens=int(found.n_tokens[i]),
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
        jobs = [self._prompts.of_case(feats, case, end_of_turn) for case in cases]
        with self.model.adapters.use(role):
            found = self._logp_of(jobs, role)
        return np.array([float(logp.double().sum()) for logp in found]), np.array([len(logp) for logp in found])

    def _under(
        self,
        feats: Features,
        cases: Sequence[Case],
        control: str,
        n: int,
        tasks: Mapping[str, str] | None,
        end_of_turn: bool,
    ) -> np.ndarray:
        """[repeat, case] log-probabilities under a control; NaN where the control has no vectors for a reading."""
        if control == "no_adapter":
            return self._logp(feats, cases, None, end_of_turn)[0][None]
        if control == "prior":
            return self._logp(feats, cases, self.prior, end_of_turn)[0][None]
        if control == "text_only":
            return self._text_only(feats, cases, end_of_turn)[None]
        rows = []
        for variant in variants(feats, control, n=n, seed=self.seed, tasks=tasks):
            known = [i for i, case in enumerate(cases) if case.item in variant.feats.items_set]
            row = np.full(len(cases), np.nan)
            row[known] = self._logp(variant.feats, [cases[i] for i in known], self.adapter, end_of_turn)[0]
            rows.append(row)
        return np.stack(rows) if rows else np.full((1, len(cases)), np.nan)

    def _text_only(self, feats: Features, cases: Sequence[Case], end_of_turn: bool) -> np.ndarray:
        """The bare base reads the text itself and is asked the same question."""
        jobs = [self._prompts.of_text(feats, case, end_of_turn) for case in cases]
        with self.model.adapters.use(None):
            found = self._logp_of(jobs, None)
        return np.array([float(logp.double().sum()) for logp in found])

    def _logp_of(self, jobs: Sequence[Job], role: str | None) -> list[Tensor]:
        return answer_logp(
            self.model, jobs, self.spec, share=self.share, budget=self.tokens_per_batch, kept=self._kept(role)
        )

    def _text(self, ids: Sequence[int]) -> str:
        return self.model.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _check(self, feats: Features, controls: Sequence[str]) -> None:
        self._prompts.forget()
        known = (*VECTOR_CONTROLS, *READER_CONTROLS)
        for control in controls:
            if control not in known:
                raise ValueError(f"control {control!r}: expected some of {', '.join(known)}.")
        if "prior" in controls and self.prior is None:
            raise ValueError("control 'prior' needs an oracle trained on zeroed activations: Oracle(..., prior=role).")
        if "text_only" in controls and any(item not in feats.texts for item in feats.items):
            raise ValueError("control 'text_only' needs the texts of the readings: Features(..., texts=...).")
        if feats.d_model != self.model.d_model:
            raise ValueError(
                f"features are {feats.d_model} wide, the oracle's base {self.model.name} has {self.model.d_model}: "
                f"an oracle reads activations of its own base (source {feats.slots[0].source!r})."
            )
        warn_off_distribution(feats, self.spec, self.model)
