"""Replies of an evaluation as prompts with token ids, and what is left out of them, counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.io.items import PLAN
from interp.positions import NothingSelectedError, Positions
from interp.prompt import render
from interp.remedy import did_you_mean, remedy
from interp.replies import ReplyPrompt, reply_prompt
from interp.reply_positions import Match, matches
from interp.tasks.decision_sites import decision_sites
from interp.tasks.protocol import EvaluatedTask, load_evaluated_task
from study.analyses.eval.store import identity_of, read_again, read_answers

if TYPE_CHECKING:
    from interp.prompt import Example
    from study.rows import Row


@dataclass(frozen=True, eq=False)
class Replies:
    """The replies of one member that are read, and those that are not.

    Attributes:
        examples: one per reply, with what the task reads in the reply as metadata (`reply.label`, `reply.correct`,
            `reply.tokens`, `reply.sample`); of items that were asked several times the id is `id#sample`, and the
            group `item` names the item.
        answers: as they were stored, in the same order.
        n_written: number of replies in the folder, to these examples.
        excluded: reason -> ids of the replies that are left out for it.
        identity: what the evaluation was asked.
    """

    member: str
    examples: tuple[Example, ...]
    answers: tuple[Row, ...]
    n_written: int
    excluded: Mapping[str, tuple[str, ...]]
    identity: Row
    task: EvaluatedTask = field(repr=False)

    def prompts(self, tokenizer: Any) -> list[ReplyPrompt]:
        """Prompt and reply of each example.

        Raises:
            ValueError: the tokenizer or its chat template gives another prompt than the member was asked, or another
                text of the reply.
        """
        thinking = self.identity["decoding"].get("thinking")
        return [self._prompt(*pair, tokenizer, thinking) for pair in zip(self.examples, self.answers, strict=True)]

    def _prompt(self, example: Example, answer: Row, tokenizer: Any, thinking: bool | None) -> ReplyPrompt:
        prompt = render(example, tokenizer, thinking=thinking)
        if prompt.sha256 != answer["prompt_sha256"]:
            raise ValueError(
                f"example {example.id!r}: the prompt has other token ids than the one that {self.member} replied to "
                f"({prompt.sha256[:12]} != {answer['prompt_sha256'][:12]}). Give the tokenizer, the items and the "
                f"options of the prompt ({remedy('{template}, {template_date}', 'template, template_date')}) of the "
                "evaluation."
            )
        opened = len(answer.get("opened", ""))
        sites = decision_sites(self.task, example, answer.get("opened", "") + answer["text"])
        decisions = [(site.name, max(len(site.before) - opened, 0)) for site in sites]
        made = reply_prompt(prompt, answer["token_ids"], tokenizer, decisions=decisions)
        written = made.text[made.spans["answer"][0] :]
        if not written.startswith(answer["text"]):  # behind a plain text the stop of a turn may follow
            raise ValueError(
                f"example {example.id!r}: this tokenizer reads the generated ids as {written[:40]!r}..., and the reply "
                f"of {self.member} is {answer['text'][:40]!r}.... Replies can be read through members of one tokenizer."
            )
        return made


def read_replies(
    folder: Path,
    member: str,
    examples: Sequence[Example],
    *,
    mode: str | None = None,
    keep_unfinished: bool = False,
) -> Replies:
    """The replies of a member in a folder of `diptych eval`, without those that are empty or unfinished.

    Raises:
        ValueError: no evaluation there; one of labels alone, or of a version that kept no token ids; examples that it
            did not ask; nothing left.
    """
    root = _root(folder, member, mode)
    identity, by_id = identity_of(root), {example.id: example for example in examples}
    task = load_evaluated_task(str(identity["task"]))
    answers = [answer for answer in read_answers(root) if answer["example_id"] in by_id]
    _check_answers(root, answers, by_id)
    several = len({answer["sample"] for answer in answers}) > 1
    kept: list[tuple[Example, Row]] = []
    excluded: dict[str, list[str]] = {"empty": [], "unfinished": []}
    order = {name: place for place, name in enumerate(by_id)}
    for answer in sorted(answers, key=lambda one: (order[one["example_id"]], one["sample"])):
        example = _example(by_id[answer["example_id"]], answer, task, several=several)
        if not answer["token_ids"]:
            excluded["empty"].append(example.id)
        elif not (answer["finished"] or keep_unfinished):
            excluded["unfinished"].append(example.id)
        else:
            kept.append((example, answer))
    if not kept:
        counts = ", ".join(f"{len(ids)} {reason}" for reason, ids in excluded.items())
        raise ValueError(
            f"{root}: none of {len(answers)} replies is left ({counts}). "
            + remedy("Evaluate with a larger {eval.max_new_tokens}, or keep them with {unfinished:keep}.")
        )
    left_out = {reason: tuple(ids) for reason, ids in excluded.items()}
    chosen, rows = (tuple(column) for column in zip(*kept, strict=True))
    return Replies(member, chosen, rows, len(answers), left_out, identity, task)


def _root(folder: Path, member: str, mode: str | None) -> Path:
    """Folder of the answers of a member in one prompt mode."""
    root = folder / member
    if not root.is_dir():
        names = (
            sorted(path.name for path in folder.iterdir() if any(path.glob(f"**/{PLAN}"))) if folder.is_dir() else []
        )
        raise ValueError(
            f"{folder}: expected the answers of {member!r} of `diptych eval --out`, found "
            f"{', '.join(names) or 'none'}.{did_you_mean(member, names)}"
        )
    modes = sorted(path.name for path in root.iterdir() if (path / PLAN).is_file())
    if mode is None and modes and not (root / PLAN).is_file():
        raise ValueError(f"{root}: answers in several modes, {', '.join(modes)}: {remedy('name one with {mode}')}.")
    if mode is not None and mode not in modes:
        raise ValueError(f"{root}: no mode {mode!r}; it has {', '.join(modes) or 'one mode: leave it out'}.")
    return root if mode is None else root / mode


def _check_answers(root: Path, answers: Sequence[Row], by_id: Mapping[str, Example]) -> None:
    asked = {answer["example_id"] for answer in answers}
    if missing := [name for name in by_id if name not in asked]:
        raise ValueError(
            f"{root}: {len(missing)} of {len(by_id)} items have no reply there, first {missing[0]!r}. Name the task, "
            "data and options of the evaluation, or finish it."
        )
    if any(answer["text"] is None for answer in answers):
        raise ValueError(f"{root}: labels were scored and no reply was written. Evaluate with generation first.")
    without = [answer["example_id"] for answer in answers if answer.get("token_ids") is None]
    if without:
        raise ValueError(
            f"{root}: {len(without)} of {len(answers)} replies have no token ids (first {without[0]!r}): they were "
            "written by an older version. Evaluate again into a new folder; text is not tokenized again, as that need "
            "not give the ids that were generated."
        )


def _example(example: Example, answer: Row, task: EvaluatedTask, *, several: bool) -> Example:
    read = read_again(answer, example, task)
    facts = {
        "reply.label": read["label"],
        "reply.correct": read["scores"].get("correct"),
        "reply.tokens": len(answer["token_ids"] or ()),
        "reply.sample": answer["sample"],
    }
    example = replace(example, metadata={**example.metadata, **facts})
    if not several:
        return example
    groups = {**example.groups, "item": example.id}
    return replace(example, id=f"{example.id}#{answer['sample']}", groups=groups)


def search_replies(written: Sequence[Replies], rules: Sequence[Positions]) -> None:
    """Apply the regular expressions of `rules` to every reply, before any weight is read.

    Raises:
        ValueError: one that takes too long, or that matches in no reply of any member.
    """
    texts = [(e.id, answer["text"]) for own in written for e, answer in zip(own.examples, own.answers, strict=True)]
    for rule in (rule for rule in rules if isinstance(rule, Match)):
        found = [bool(matches(rule.pattern, text, name)) for name, text in texts]  # each of them may take too long
        if not any(found):
            raise ValueError(
                f"{rule.name} matches in none of {len(texts)} replies; the first one begins {texts[0][1][:80]!r}. "
                "Correct the pattern, or leave the rule out."
            )


def unmatched(prompts: Sequence[ReplyPrompt], rules: Sequence[Positions]) -> dict[str, tuple[str, ...]]:
    """Name of each rule -> ids of the replies in which it selects nothing; rules without such replies are left out."""
    out: dict[str, tuple[str, ...]] = {}
    for rule in rules:
        names = tuple(prompt.example_id for prompt in prompts if not _selects(rule, prompt))
        out |= {rule.name: names} if names else {}
    return out


def _selects(rule: Positions, prompt: ReplyPrompt) -> bool:
    try:
        return bool(rule.resolve(prompt))
    except NothingSelectedError:
        return False


def lines_of(replies: Replies, nothing: Mapping[str, tuple[str, ...]]) -> list[str]:
    """What was read and what was left out, in sentences with counts."""
    out = [f"{replies.member}: {len(replies.examples)} of {replies.n_written} replies are read."]
    for reason, ids in replies.excluded.items():
        out += [f"  excluded: {len(ids)} {reason}, first {ids[0]!r}"] if ids else []
    out += [f"  {rule}: selects nothing in {len(ids)}, first {ids[0]!r}" for rule, ids in nothing.items()]
    return out
