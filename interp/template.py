"""How a chat becomes text: the tokenizer's chat template, and rules for what it must not decide by itself.

A template may read the clock or open no assistant turn, and a user's text may contain control tokens; `PromptRules`
decide these cases, are attached to the tokenizer and are the same for every prompt of a run. Control tokens written out
in a message stay text (`Marker`).
"""

from __future__ import annotations

import datetime
import json
import os
import re
import weakref
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from interp.limits import OutOfTime, time_limit
from interp.remedy import remedy

CONTROL_TOKENS = ("text", "refuse")
TEMPLATES = ("own", "plain")
PLAIN = (
    "{% for message in messages %}{{ message['role'] | capitalize }}:\n{{ message['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)
"""Chat as plain text, for models that were never taught a chat format."""
PLAIN_STOP = "\nUser:"
"""Where a reply under `PLAIN` ends: such a model has no end-of-turn token and continues with the next turn."""
_RULES = "diptych_rules"
_RUN_DATE = "DIPTYCH_TEMPLATE_DATE"
_CONTENT = "diptych-turn-7b2e"
_SECONDS = 3.0  # of processor time for one chat; a long one takes milliseconds
_LARGEST = 1_000_000
_KEPT, _KEPT_LENGTH = 8_192, 4_096  # chats, and characters of the longest that is kept
_CHATS: weakref.WeakKeyDictionary[Any, tuple[Any, dict[Any, Any]]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class PromptRules:
    """Decisions about prompts, made once per run.

    Args:
        control_tokens: special tokens written out in a message: "text" keeps them as text, "refuse" raises an error.
            They never become control tokens.
        template_date: date (YYYY-MM-DD) given to a chat template that reads the clock; None is the day on which the run
            first rendered such a template, the same for all its prompts.
        template: "own" is the tokenizer's chat template; "plain" renders every chat as plain text (`PLAIN`), for base
            models without a template and whatever is compared with them.
        allow_closed_turn: accept a chat template that opens no assistant turn, so that the last position is the end of
            the user's turn.
    Raises:
        ValueError: an unknown choice, or an invalid date.
    """

    control_tokens: str = "text"
    template_date: str | None = None
    allow_closed_turn: bool = False
    template: str = "own"

    def __post_init__(self) -> None:
        if self.template not in TEMPLATES:
            raise ValueError(f"template {self.template!r}: expected one of {', '.join(TEMPLATES)}.")
        if self.control_tokens not in CONTROL_TOKENS:
            raise ValueError(f"control_tokens {self.control_tokens!r}: expected one of {', '.join(CONTROL_TOKENS)}.")
        if self.template_date is not None:
            _parsed(self.template_date, "template_date")


def rules_of(tokenizer: Any) -> PromptRules:
    """The rules for a tokenizer's prompts; the defaults if none were set."""
    return getattr(tokenizer, _RULES, None) or PromptRules()


def set_rules(tokenizer: Any, rules: PromptRules) -> None:
    """Apply `rules` to every prompt of this tokenizer."""
    setattr(tokenizer, _RULES, rules)
    if rules.template == "plain":
        ids, bos = tokenizer("a")["input_ids"], getattr(tokenizer, "bos_token_id", None)
        begins = "{{ bos_token }}" if bos is not None and ids[:1] == [bos] else ""  # chats are tokenized without it
        tokenizer.chat_template = begins + PLAIN


def template_of(tokenizer: Any) -> str | None:
    """The chat template that renders prompts; the one called "default" where there are several."""
    template = getattr(tokenizer, "chat_template", None)
    return template.get("default") if isinstance(template, Mapping) else template


def is_plain(tokenizer: Any) -> bool:
    """Whether chats are rendered as plain text."""
    return rules_of(tokenizer).template == "plain"


def clock_of(tokenizer: Any) -> str | None:
    """The date that the tokenizer's chat template is given; None where it does not read the clock."""
    return _date(tokenizer).isoformat() if "strftime_now" in (template_of(tokenizer) or "") else None


def apply_template(
    tokenizer: Any,
    chat: Sequence[tuple[str, str]],
    *,
    thinking: bool | None = None,
    tokenize: bool = False,
    generation_prompt: bool = True,
) -> Any:
    """The chat as text (or as token ids), rendered by the tokenizer's template at a fixed date.

    Args:
        chat:     (role, content) of every turn.
        thinking: given to the template as `enable_thinking`; None leaves the template's own default.
    """
    options: dict[str, Any] = {} if thinking is None else {"enable_thinking": thinking}
    _check_template(template_of(tokenizer) or "")
    if clock_of(tokenizer) is not None:
        options["chat_template"] = _at_date(template_of(tokenizer) or "", _date(tokenizer))
    key = (options.get("chat_template", template_of(tokenizer)), tuple(chat), thinking, tokenize, generation_prompt)
    known = _rendered_by(tokenizer)
    if key in known:
        return list(known[key]) if tokenize else known[key]
    with _template_errors(tokenizer), time_limit(_SECONDS):
        out = tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in chat],
            tokenize=tokenize,
            add_generation_prompt=generation_prompt,
            return_dict=tokenize,  # explicit because its default differs between transformers 4 and 5
            **options,
        )
    made = array("I", out["input_ids"]) if tokenize else out  # a tenth of the memory of a tuple
    if sum(len(content) for _, content in chat) <= _KEPT_LENGTH:
        if len(known) >= _KEPT:
            del known[next(iter(known))]
        known[key] = made
    return list(made) if tokenize else made


def _rendered_by(tokenizer: Any) -> dict[Any, Any]:
    """Chats that this tokenizer, as it is now, has rendered: checks render every prompt several times."""
    size = len(tokenizer) if hasattr(type(tokenizer), "__len__") else None  # a wrapper may not pass it on
    state = (size, tuple((name, str(token)) for name, token in tokenizer.special_tokens_map.items()))
    held, known = _CHATS.get(tokenizer, (None, {}))
    if held != state:
        known = {}
        _CHATS[tokenizer] = (state, known)
    return known


class ChatTemplateError(ValueError):
    """An invalid chat template, or one that cannot render this chat."""


_DO = "Correct it, name a folder with another one by `tokenizer`, or give rendered prompts as raw 'text'."


@contextmanager
def _template_errors(tokenizer: Any) -> Iterator[None]:
    """Re-raise every error of a template as `ChatTemplateError`; a template may raise any exception."""
    where = f"the chat template of {getattr(tokenizer, 'name_or_path', '')!r}"
    try:
        yield
    except OutOfTime:
        raise ChatTemplateError(f"{where} ran for {_SECONDS:g} s on one chat; does a loop never end? {_DO}") from None
    except ImportError:
        raise
    except Exception as error:
        line = getattr(error, "lineno", None)
        at = f"line {line}: " if line else ""
        raise ChatTemplateError(
            f"{where} cannot render this chat ({at}{type(error).__name__}: {error!s:.300}). {_DO}"
        ) from error


@lru_cache(maxsize=64)
def _check_template(template: str) -> None:
    """Refuse a template in which one operation could exhaust time or memory: a power, or a product with a huge number.

    Raises:
        ChatTemplateError: as above. A template that does not parse fails when it is rendered, with the line.
    """
    from jinja2 import Environment, TemplateError, nodes

    if "**" not in template and "*" not in template:
        return
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(
            re.sub(r"\{%-?\s*(?:end)?generation\s*-?%\}", "", template)
        )
    except (TemplateError, RecursionError):
        return
    huge = [product for product in tree.find_all(nodes.Mul) if _is_huge(product.left) or _is_huge(product.right)]
    if odd := [*tree.find_all(nodes.Pow), *huge]:
        raise ChatTemplateError(
            f"the chat template computes a power or a product with a number above {_LARGEST:,} (line {odd[0].lineno}), "
            f"which no prompt needs and which may never end. {_DO}"
        )


def _is_huge(node: Any) -> bool:
    value = getattr(node, "value", None)  # of a constant
    return isinstance(value, int | float) and abs(value) > _LARGEST


def check_opens_turn(tokenizer: Any, roles: tuple[str, ...], thinking: bool | None) -> None:
    """Check that the prompt ends where the assistant's text begins.

    A template without a branch on `add_generation_prompt` renders the same text with and without it. That is right
    only if the assistant's text follows directly (Llama 2's "[INST] ... [/INST]"); otherwise the last token is the end
    of the user's turn, where no model answers.

    Raises:
        ValueError: the template opens no assistant turn, and the rules do not allow that.
    """
    opens = _OPENS.setdefault(tokenizer, {})
    key = (template_of(tokenizer), roles, thinking)
    if key not in opens:
        opens[key] = _opens_turn(tokenizer, roles, thinking)
    if opens[key] or rules_of(tokenizer).allow_closed_turn:
        return
    raise ValueError(
        f"the chat template of {getattr(tokenizer, 'name_or_path', '')!r} opens no assistant turn: it renders the same "
        f"prompt with and without add_generation_prompt, so the last position would be the end of the user's turn, "
        f"where the model does not answer. Give the template an add_generation_prompt branch (`tokenizer` names a "
        f"folder with another one), or give rendered prompts as raw 'text'. "
        f"{remedy('To measure there all the same, load with {allow_closed_turn:True}.')}"
    )


_OPENS: weakref.WeakKeyDictionary[Any, dict[tuple[Any, ...], bool]] = weakref.WeakKeyDictionary()


def _opens_turn(tokenizer: Any, roles: tuple[str, ...], thinking: bool | None) -> bool:
    chat = [(role, _CONTENT) for role in roles]
    text = apply_template(tokenizer, chat, thinking=thinking)
    if text != apply_template(tokenizer, chat, thinking=thinking, generation_prompt=False):
        return True
    reply = _CONTENT[::-1]
    try:
        answered = apply_template(tokenizer, [*chat, ("assistant", reply)], thinking=thinking, generation_prompt=False)
    except ChatTemplateError:
        return False
    before, reply_found, _ = answered.partition(reply)
    return bool(reply_found) and before.rstrip() == text.rstrip()


@lru_cache(maxsize=16)
def _at_date(template: str, date: datetime.date) -> str:
    """The template with a fixed date instead of the clock: every `strftime_now(form)` becomes `form` filled in.

    Raises:
        ValueError: the clock is read in another way.
    """
    at = datetime.datetime.combine(date, datetime.time())
    directives = [f"%{flag}{letter}" for letter in "aAbBcdfGHIjmMpSuUVwWxXyYZ" for flag in ("-", "")]
    filled = "".join(f" | replace('{d}', '{at.strftime(d)}')" for d in directives) + " | replace('%%', '%')"
    fixed = re.sub(r"strftime_now\(([^()]*)\)", rf"((\1){filled})", template)
    if re.search(r"strftime_now(?!\s+is\s)", fixed):
        raise ValueError(
            "the chat template reads the clock (strftime_now) in a way that cannot be given a fixed date. Write the "
            "date into a copy of the template and name its folder with the checkpoint's `tokenizer` key."
        )
    return fixed


def _date(tokenizer: Any) -> datetime.date:
    date = rules_of(tokenizer).template_date
    if date is not None:
        return _parsed(date, "template_date")
    # in the environment, so that processes started by this one render the same prompts after midnight
    return _parsed(os.environ.setdefault(_RUN_DATE, datetime.date.today().isoformat()), _RUN_DATE)


def _parsed(text: str, where: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{where} {text!r}: expected a date such as 2024-07-26.") from None


_MARKS, _STANDS = 0xF0000, 0x100000  # planes 15 and 16 are private-use: no ordinary text has characters there


class Marker:
    """Marks special tokens in messages before a template is rendered, and tokenizes what it renders.

    Every special token j has two private characters: one for its written-out text, one for the token itself. In a copy
    of the tokenizer the special tokens have the second as their text, so written-out ones are ordinary characters.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokens = special_tokens(tokenizer)
        self._pattern = re.compile("|".join(re.escape(t) for t in sorted(self.tokens, key=len, reverse=True)) or "(?!)")
        self._number = {token: j for j, token in enumerate(self.tokens)}
        self._core = _renamed(tokenizer, {token: chr(_STANDS + j) for token, j in self._number.items()})

    def mark(self, content: str) -> str:
        """`content` with its written-out special tokens as private characters.

        Raises:
            ValueError: the content has private characters of its own.
        """
        if re.search(f"[{chr(_MARKS)}-{chr(_STANDS + 0xFFFD)}]", content):
            raise ValueError("a message holds control tokens and characters of the private planes; remove the latter.")
        return self._pattern.sub(lambda found: chr(_MARKS + self._number[found[0]]), content)

    def unmark(self, text: str) -> str:
        """The text with the special tokens written out again."""
        return re.sub(f"[{chr(_MARKS)}-{chr(_MARKS + 0xFFFD)}]", lambda m: self.tokens[ord(m[0]) - _MARKS], text)

    def encode(self, marked: str) -> tuple[list[int], list[tuple[int, int]]]:
        """(token ids, character ranges in `unmark(marked)`); unmarked special tokens are tokens, marked ones text."""
        inner, places, at = "", [], 0
        cuts = re.split(f"({self._pattern.pattern}|[{chr(_MARKS)}-{chr(_MARKS + 0xFFFD)}])", marked)
        for number, piece in enumerate(cuts):
            if number % 2 and piece in self._number:
                inner += chr(_STANDS + self._number[piece])
                places.append(at)
            else:
                written = self.unmark(piece)
                inner += written
                places += range(at, at + len(written))
            at += len(self.unmark(piece))
        places.append(at)
        encoding = self._core.encode(inner, add_special_tokens=False)
        return encoding.ids, [(places[a], places[b]) for a, b in encoding.offsets]


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The control tokens of a tokenizer, as they are written."""
    return _listed(tuple((token.content, token.special) for token in tokenizer.added_tokens_decoder.values()))


@lru_cache(maxsize=16)
def _listed(added: Sequence[tuple[str, bool]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(content for content, is_special in added if is_special and content))


def marker_of(tokenizer: Any) -> Marker:
    """The marker of a tokenizer, created on first use."""
    if tokenizer not in _HELD:
        _HELD[tokenizer] = Marker(tokenizer)
    return _HELD[tokenizer]


_HELD: weakref.WeakKeyDictionary[Any, Marker] = weakref.WeakKeyDictionary()


def _renamed(tokenizer: Any, names: dict[str, str]) -> Any:
    """The tokenizer's core with its special tokens under other names and the same ids."""
    from tokenizers import Tokenizer

    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    rules |= {"post_processor": None, "truncation": None, "padding": None}
    for token in rules["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    vocab = rules["model"].get("vocab")
    if isinstance(vocab, dict):  # a special token that is also in the vocabulary must not be found there
        rules["model"]["vocab"] = {names.get(token, token): index for token, index in vocab.items()}
        unknown = rules["model"].get("unk_token")
        rules["model"]["unk_token"] = names.get(unknown, unknown)
    elif isinstance(vocab, list):
        rules["model"]["vocab"] = [[names.get(token, token), score] for token, score in vocab]
    core = Tokenizer.from_str(json.dumps(rules))
    moved = [token for token, name in names.items() if core.token_to_id(name) != tokenizer.convert_tokens_to_ids(token)]
    if moved:
        raise ValueError(
            f"control tokens cannot be kept as text with this tokenizer ({', '.join(moved[:3])} would change their "
            f"ids). {remedy('Load with {control_tokens:refuse}')} and drop the items that it names."
        )
    return core
