"""A pair of prompts: the run that is changed, the run that what is put in comes from, and the two answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from interp.passes import Pass
from interp.positions import Answer, Positions, Span
from interp.prompt import Example, Prompt, joined, render

Where = Literal["pairs"] | Positions
"""Tokens at which heads are changed: a rule, or each pair's own `positions`."""


@dataclass(frozen=True)
class TokenPair:
    """Two prompts and the answers between which they decide. Heads are changed in `exp`, which is read at its end.

    Attributes:
        base_ids: prompt that patched activations come from (Yang's c2); None if nothing is patched.
        exp_ids: prompt whose run is changed (Yang's c1); its last token is the answer slot.
        answer: right token of the unchanged exp run.
        foil: the other token: the answer of exp if the patch carries over the base run's answer. None: the best of the
            other `options`, chosen in each run.
        positions: tokens of exp to change, unless the sweep has its own rule; None: the last.
        base_positions: corresponding tokens of base, one for one; None: the same numbers if the prompts have equal
            lengths, else the last one for the last one.
        base_answer: right token of the base run; None: the foil. In Yang's abstract contexts it is `answer`.
        options: all possible answers; `answer` and `foil` come first.
        id: name of the item; if empty, a digest of the content.
        group: independent unit (procedure, word set); None: the item itself.
        label: class of exp, for class means and same-label donors.
        kind: kind of pair, such as "flip", "keep" or "ABA/token".
        roles, base_roles: span name -> token numbers.
        decision_site: name of the decision of a task that exp ends in front of (`interp.tasks.decision_sites`).
    Raises:
        ValueError: an empty prompt, answers that do not differ, positions outside the prompt or not one for one.
    """

    base_ids: tuple[int, ...] | None
    exp_ids: tuple[int, ...]
    answer: int
    foil: int | None
    positions: tuple[int, ...] | None = None
    base_positions: tuple[int, ...] | None = None
    base_answer: int | None = None
    options: tuple[int, ...] = ()
    id: str = ""
    group: str | None = None
    label: str | None = None
    kind: str = ""
    roles: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    base_roles: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    decision_site: str = ""

    def __post_init__(self) -> None:
        named = (self.answer,) if self.foil is None else (self.answer, self.foil)
        object.__setattr__(self, "options", tuple(dict.fromkeys((*named, *self.options))))
        if not self.id:
            object.__setattr__(self, "id", self.sha256[:12])
        if self.base_answer is not None and self.base_answer not in named:
            raise self._wrong(f"base_answer {self.base_answer}: expected the answer or the foil.")
        if not self.exp_ids or self.base_ids == ():
            raise self._wrong("a prompt without tokens.")
        if len(self.options) < 2 or self.foil == self.answer:
            raise self._wrong(f"answer {self.answer} and foil {self.foil}: expected two different answers.")
        self._check_positions(self.positions, self.exp_ids, "positions")
        self._check_positions(self.base_positions, self.base_ids or (), "base_positions")

    def _wrong(self, what: str) -> ValueError:
        return ValueError(f"pair {self.id!r}: {what}")

    def _check_positions(self, at: tuple[int, ...] | None, ids: Sequence[int], name: str) -> None:
        if at is None:
            return
        if not at or list(at) != sorted(set(at)) or not 0 <= at[0] <= at[-1] < len(ids):
            raise self._wrong(f"{name} {at}: expected ascending token numbers within 0-{len(ids) - 1}.")

    @property
    def sha256(self) -> str:
        """Digest of everything that an effect depends on."""
        content = [
            self.base_ids,
            self.exp_ids,
            self.options,
            self.foil,
            self.base_answer,
            self.positions,
            self.base_positions,
        ]
        content += [self.label, sorted(self.roles.items()), sorted(self.base_roles.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def flips(self) -> bool:
        """Whether base and exp have different right answers."""
        return self.base_answer != self.answer

    @property
    def unit(self) -> str:
        """The independent unit that statistics count."""
        return self.id if self.group is None else self.group

    def exp_tokens(self, where: Where) -> tuple[int, ...]:
        """Tokens of exp that `where` chooses.

        Raises:
            ValueError: the pair has no role for a span, or the prompt is too short for the rule.
        """
        if isinstance(where, str):
            return self.positions or (len(self.exp_ids) - 1,)
        return _resolve(where, len(self.exp_ids), self.roles, self.id)

    def base_tokens(self, where: Where) -> tuple[int, ...]:
        """Tokens of base that correspond one for one to `exp_tokens(where)`.

        Raises:
            ValueError: there is no base prompt, or the prompts have unequal lengths and no corresponding positions.
        """
        if self.base_ids is None:
            raise self._wrong("it has no base prompt to take activations from. Give base_ids, or use Mean or Zero.")
        exp, n = self.exp_tokens(where), len(self.base_ids)
        if isinstance(where, str) and self.base_positions is not None:
            base = self.base_positions
        elif n == len(self.exp_ids):
            base = exp
        elif exp == (len(self.exp_ids) - 1,):
            base = (n - 1,)
        elif not isinstance(where, str):
            base = _resolve(where, n, self.base_roles, self.id)
        else:
            base = ()
        if len(base) != len(exp):
            raise self._wrong(
                f"exp has {len(self.exp_ids)} tokens, base {n}, and {len(exp)} positions of exp have no counterpart "
                "one for one. Give base_positions, use twins of equal length, or change the answer slot only."
            )
        return base


def _resolve(rule: Positions, n: int, roles: Mapping[str, tuple[int, ...]], item: str) -> tuple[int, ...]:
    if isinstance(rule, Span):
        if rule.span not in roles:
            raise ValueError(
                f"pair {item!r}: {rule.name!r} needs the tokens of {rule.span!r}; it has: "
                f"{', '.join(sorted(roles)) or 'none'}. Make pairs from texts with spans, or set roles."
            )
        tokens = roles[rule.span]
        return {"all": tokens, "first": tokens[:1], "last": tokens[-1:]}[rule.which]
    return Pass(1, n).tokens(rule)[0]


def where_of(positions: Where | None, pairs: Sequence[TokenPair]) -> Where:
    """The given rule; without one, each pair's own positions if any pair has some, else the answer slot."""
    if positions is not None:
        return positions
    return "pairs" if any(pair.positions is not None for pair in pairs) else Answer()


def pairs_sha256(pairs: Sequence[TokenPair]) -> str:
    """Digest of a set of pairs, in order."""
    return hashlib.sha256("".join(f"{pair.id}:{pair.sha256}\n" for pair in pairs).encode()).hexdigest()


def text_pair(
    base: Example | str | None,
    exp: Example | str,
    tokenizer: Any,
    *,
    answer: str,
    foil: str | None,
    options: Sequence[str] = (),
    before: str = "",
    base_before: str | None = None,
    base_answer: str | None = None,
    kind: str = "",
    thinking: bool | None = None,
    delimiter: str = " ",
    group: str | None = None,
) -> TokenPair:
    """The pair of two prompts, cut just before the token at which `answer` and `foil` first differ.

    Without a foil it is cut where `answer` and any other option first differ, for the best other option is the foil.
    Options that are not separable there (they begin with other tokens, or like the answer) are left out.

    The common beginning of answers is teacher-forced in both runs. So is `before`, the assistant's text before the
    label: the model's own reasoning, or a forced "Answer:". It follows the example's own `answer`, if there is one.

    Args:
        base: example that activations come from, or a raw text; None if nothing is patched.
        answer: right answer of exp; foil: the other one, that of base if the two differ; None: the best of `options`.
        options: all possible answers; by default the two.
        base_answer: right answer of base; None: the foil.
        before, base_before: text put after the generation prompt of exp, and of base; None: `before`.
        delimiter: between the label and a text before it that does not end in whitespace; see `interp.prompt.joined`.
        group: name of the group of exp that is the independent unit, such as `GROUP` of its task; None: the first one.
    Raises:
        ValueError: the answers have equal tokens, no foil and no other option; and as `interp.prompt.render`.
    """
    item = _example(exp, "exp")
    choices = _choices(item.id, answer, foil, options, base_answer)
    n_named = 2 if foil is not None else len(choices)
    prompt, ids, tokens = _cut(item, tokenizer, before, choices, n_named, thinking, delimiter)
    base_ids, base_roles = None, {}
    if base is not None:
        text, item_base = before if base_before is None else base_before, _example(base, "base")
        base_prompt, base_ids, other = _cut(item_base, tokenizer, text, choices, n_named, thinking, delimiter)
        base_roles = _roles(base_prompt, len(base_ids))
        if other != tokens:
            raise ValueError(f"pair {item.id!r}: the answers are tokens {tokens} after exp and {other} after base.")
    return TokenPair(
        base_ids,
        ids,
        tokens[answer],
        None if foil is None else tokens[foil],
        base_answer=None if base_answer is None else tokens[base_answer],
        options=tuple(tokens.values()),
        id=item.id,
        group=group_of(item, group),
        label=None if item.label is None else str(item.label),
        kind=kind,
        roles=_roles(prompt, len(ids)),
        base_roles=base_roles,
    )


def _choices(
    item: str, answer: str, foil: str | None, options: Sequence[str], base_answer: str | None
) -> tuple[str, ...]:
    """The answer, the foil and the further options, each once."""
    named = (answer,) if foil is None else (answer, foil)
    choices = tuple(dict.fromkeys((*named, *options)))
    if len(choices) < 2:
        raise ValueError(f"pair {item!r}: expected a foil or further options than the answer {answer!r}.")
    if base_answer not in (None, *named):
        raise ValueError(f"pair {item!r}: base_answer {base_answer!r} is neither {answer!r} nor {foil!r}.")
    return choices


def group_of(example: Example, name: str | None) -> str | None:
    """Key of an example's independent unit: the group of that name, without a name the first; None where it has none.

    Example:
        >>> both = Example("a", text="x", groups={"category": "Age", "story": "Age-13"})
        >>> group_of(both, "story"), group_of(both, None), group_of(both, "subject")
        ('Age-13', 'Age', None)
    """
    return next(iter(example.groups.values()), None) if name is None else example.groups.get(name)


def _example(given: Example | str, name: str) -> Example:
    return Example(id=f"{name}:{given[:40]}", text=given) if isinstance(given, str) else given


def _cut(
    example: Example,
    tokenizer: Any,
    before: str,
    answers: Sequence[str],
    n_named: int,
    thinking: bool | None,
    delimiter: str,
) -> tuple[Prompt, tuple[int, ...], dict[str, int]]:
    """(prompt with the first answer, ids before the first token at which the first `n_named` answers differ, the token
    of each answer there). Of further answers only those that differ there too, from each other as well."""
    prompts = [
        render(replace(example, answer=joined(example, before, answer, delimiter)), tokenizer, thinking=thinking)
        for answer in answers
    ]
    ids = [prompt.ids for prompt in prompts]
    columns = zip(*ids[:n_named], strict=False)
    n = next((i for i, column in enumerate(columns) if len(set(column)) > 1), None)
    if n is None:
        raise ValueError(
            f"example {example.id!r}: answer {answers[0]!r} and foil {answers[1]!r} do not differ at any token "
            "(one is the beginning of the other). Add what follows the answer, such as a full stop or the end "
            "of the line."
        )
    tokens: dict[str, int] = {}
    for answer, one in zip(answers, ids, strict=True):
        if len(one) > n and one[:n] == ids[0][:n] and one[n] not in tokens.values():
            tokens[answer] = one[n]
    return prompts[0], ids[0][:n], tokens


def _roles(prompt: Prompt, n: int) -> dict[str, tuple[int, ...]]:
    """Token numbers of each span before the end of the answer slot."""
    roles = {name: tuple(i for i in prompt.tokens_in(*span) if i < n) for name, span in prompt.spans.items()}
    return {name: tokens for name, tokens in roles.items() if tokens and name != "answer"}
