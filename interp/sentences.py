"""Sentences of a prompt as records with character and token ranges. Labels refer to records, not to list positions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Literal, get_args

from interp.prompt import Prompt

Style = Literal["offsets", "v2"]
STYLES: tuple[str, ...] = get_args(Style)

_CLOSER = r"(?:[\"'”’»)\]}*_$`]|\\[)\]])"
_STOP = re.compile(
    rf"(?<![.!?…])(?P<stop>[.!?…]++)(?P<closers>{_CLOSER}*)(?:(?=\s|$)|(?P<glued>(?=[^\W\d_])))"
    r"|[。｡！？।॥؟۔።፧။។։]+[”’」』）]*"  # Chinese, Japanese, Hindi, Arabic, Urdu, Amharic, Burmese, Khmer, Armenian
)
_LIST_MARK = r"(?:[-*•+]|\#{1,6}|\(?\d{1,3}[.)]{1,2}|\(?[A-Za-z]\)|[A-Z]\.)"
_LINE = r"(?>\r\n?|[\n\u2028])"
_HARD_BREAK = re.compile(rf"</?think>|{_LINE}[^\S\r\n]*(?:{_LINE}\s*)|\u2029\s*|{_LINE}(?=[ \t]*{_LIST_MARK}[ \t])")
_ENUMERATOR = re.compile(r"(?:[-*•+]\s+)?\**\(?(?:\d{1,3}|[A-Za-z]|i{1,3}|iv|vi{0,3}|ix)\**\.\)?")
_ITEM = re.compile(r"(?<!\S)(?:[-*•+]\s+)?(?P<mark>\d{1,3}|[a-z])(?P<close>\.\)|[.)])(?=\s+\w)")
_OPERAND = re.compile(  # a number after these is a value and opens no item
    r"(?:[-+*/=<>≤≥≈^(\[{×÷·]|\b(?:is|are|was|be|by|to|of|at|than|and|or|equals?|gives?|get|plus|minus|times|from|for|with|in"
    r"|steps?|options?|numbers?|no\.?|rules?|cases?|lines?|parts?|level|question|chapter|page))\s*$",
    re.IGNORECASE,
)
_WORD_ON_ITS_OWN = re.compile(r"[^\W\d_][^\s,.;!?…।:=<>(\[{/&@]*(?=[\s,.;!?…।\"'”’)]|$)")
_INLINE_ONE = re.compile(r":\s+\(?1\.$")
_NEVER = re.compile(r"e\.g|i\.e|w\.r\.t|cf|vs|viz|mrs?|ms|[djs]r|prof|st|gen|rep|sen|approx|resp")
_BEFORE_NUMBER = re.compile(r"nos?|figs?|eqs?|secs?|ch|pp?|vol|art|para|ref|thm|lem")
_BEFORE_LOWER = re.compile(r"etc|al|inc|ltd|co|corp|dept|est|min|max|avg|ave|[a-z](?:\.[a-z])+")
_INITIALS = re.compile(r"(?![AP]\.M)[A-Z](?:\.[A-Z])+")
_STARTERS = re.compile(
    r"an?|the|th(?:is|at|ese|ose|ere)|i|you|s?he|it|we|they|my|your|his|her|its|our|their|here"
    r"|wh(?:at|ich|om?|ose|en|ere|y|ile)"
    r"|how|if|so|then|thus|hence|therefore|however|but|and|or|yet|for|nor|not?|yes|ok|okay|now|next|first|second|third"
    r"|finally|also|in|on|at|to|from|with|without|as|by|of|after|before|because|since|although|though|let|wait|maybe"
    r"|perhaps|actually|given|each|every|all|some|both|many|most|one|two|three|do|does|did|is|are|was|were|ha[sd]|have"
    r"|can|could|should|would|will|may|might|must",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Sentence:
    """One sentence of a prompt.

    Attributes:
        index:      its id among the sentences of the span, from 0.
        char_start: first character in `prompt.text`; `char_end` one past the last, closing quotes included.
        token_start: first token that shares a character with it; `token_end` one past the last.
    """

    index: int
    char_start: int
    char_end: int
    token_start: int
    token_end: int
    text: str

    @property
    def boundary(self) -> int:
        """Index of its last token: the last whose first character lies before `char_end`."""
        return self.token_end - 1


def sentence_records(prompt: Prompt, *, span: str = "prompt", style: Style = "offsets") -> tuple[Sentence, ...]:
    """The sentences of one span of a prompt, in order; empty where the span holds no letter or digit.

    "offsets" stays inside the span and never loses a letter: every letter and digit of the span, think tags aside, is
    in exactly one sentence. Sentences that end in the same token are one sentence, as they share their position.
    "v2" reproduces the boundaries of the activation-oracle v2 corpora, faults included (see `_v2_records`).

    Raises:
        ValueError: the prompt has no such span; "v2" on a tokenizer that is not byte-level BPE.
    """
    if span not in prompt.spans:
        has = ", ".join(sorted(prompt.spans))
        raise ValueError(f"example {prompt.example_id!r}: no span {span!r} to split into sentences; spans: {has}.")
    if style == "v2":
        return _v2_records(prompt, *prompt.spans[span])
    start, end = prompt.spans[span]
    records: list[Sentence] = []
    for a, b in split_sentences(prompt.text[start:end]):
        tokens = prompt.tokens_in(start + a, start + b)
        if records and tokens[-1] == records[-1].boundary:
            records[-1] = replace(records[-1], char_end=start + b, text=prompt.text[records[-1].char_start : start + b])
            continue
        text = prompt.text[start + a : start + b]
        records.append(Sentence(len(records), start + a, start + b, tokens[0], tokens[-1] + 1, text))
    return tuple(records)


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Character ranges [start, end) of the sentences of `text`, without the blanks around them.

    A sentence ends at . ! ? … (closing quotes, brackets, markdown and LaTeX marks included) before a blank or the
    end, at the stops of other scripts (。！？ । ॥ ؟ ۔ ። ။ ។ ։), at a blank line, before a list item or heading on its
    own line, before the next number of a list within one line (1. First 2. Second), and at a think tag. A
    missing blank does not hide an end after ! or ? (Wow!!!Next) or after a closing bracket or quote (... is.)Next).
    It does not end at a decimal point, an abbreviation (e.g., Dr., Fig. 3, U.S. troops), a list number, or an
    ellipsis that goes on in lower case. Initials before a capital end one only if a word follows that opens sentences
    (not in U.S. Army, but in U.S. He). The kind of line break (LF, CRLF, CR) changes nothing.
    Pieces without a letter or digit (rules, lone brackets) are no sentences.
    """
    return [
        (a, b)
        for left, right in _blocks(text)
        for a, b in _sentences(text, left, right)
        if any(c.isalnum() for c in text[a:b])
    ]


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    left = 0
    for mark in _HARD_BREAK.finditer(text):
        yield left, mark.start()
        left = mark.end()
    yield left, len(text)


def _sentences(text: str, left: int, right: int) -> Iterator[tuple[int, int]]:
    for start, end in pairwise([left, *_inline_items(text, left, right), right]):
        for stop in _STOP.finditer(text, start, end):
            if stop.end() < end and not _goes_on(text[start : stop.end()], text[stop.end() : right], stop):
                yield _trim(text, start, stop.end())
                start = stop.end()
        yield _trim(text, start, end)


def _inline_items(text: str, left: int, right: int) -> list[int]:
    """Where the second and later items of a list within one line begin, in order.

    The first mark opens the block or, as 1., follows a stop or colon; the others count on in the same style. There is
    no such list where the count goes on at the start of the next line (1. Take 2.\\n2. Add).
    """
    starts: list[int] = []
    due = close = None
    for item in _ITEM.finditer(text, left, right):
        mark, near = item["mark"], max(left, item.start() - 64)
        if due is None:
            before = text[near : item.start()].rstrip()
            opens = not before or (mark == "1" and before[-1] in ":.!?")
            due, close = (_next_mark(mark), item["close"]) if opens else (None, None)
        elif (mark, item["close"]) == (due, close) and not _OPERAND.search(text, near, item.start()):
            if re.match(rf"\s*{due}{re.escape(close or '')}", text[right:]):
                return starts
            starts.append(item.start())
            due = _next_mark(mark)
    return starts


def _next_mark(mark: str) -> str:
    return str(int(mark) + 1) if mark.isdigit() else chr(ord(mark) + 1)


def _trim(text: str, left: int, right: int) -> tuple[int, int]:
    piece = text[left:right]
    return left + len(piece) - len(piece.lstrip()), right - len(piece) + len(piece.rstrip())


def _goes_on(before: str, after: str, end: re.Match[str]) -> bool:
    """Whether the sentence goes on after the stop at the end of `before`, given what follows."""
    stop, closers = end["stop"], end["closers"]
    following = after.lstrip()[:1]
    if stop is None:  # a stop of another script always ends a sentence
        return False
    if end["glued"] is not None:
        return not _ends_without_blank(before, after, stop, closers)
    if _ENUMERATOR.fullmatch(before.strip()):
        return True
    if re.search(r"[\[(](?:\.\.\.|…)[\])]$", before.rstrip("\"'”’»")):  # [...] leaves words out of a sentence
        return True
    if stop != "." or closers:
        return following.islower() and (bool(closers) or stop.endswith(("..", "…")))
    last = before.split()[-1].lstrip("([{\"'“‘*_").removesuffix(".")
    word = last.lower()
    if _NEVER.fullmatch(word):
        return True
    if _INITIALS.fullmatch(last) and following.isupper():
        return not _STARTERS.fullmatch(re.split(r"\W", after.lstrip(), maxsplit=1)[0])
    if _INLINE_ONE.search(before) and re.search(r"\s\(?2\.\s", after):
        return True
    if _BEFORE_NUMBER.fullmatch(word) and (following.isdigit() or following == "("):
        return True
    return bool(_BEFORE_LOWER.fullmatch(word)) and (following.islower() or following.isdigit())


def _ends_without_blank(before: str, after: str, stop: str, closers: str) -> bool:
    """Whether a stop directly followed by a letter ends a sentence: Wow!!!Next, (It is so.)Next.

    A plain full stop does not (os.Path, example.com, U.S.A), nor anything inside an address or a piece of code.
    """
    token = before.split()[-1]
    if after[0].islower() or not _WORD_ON_ITS_OWN.match(after) or re.search(r"[/=&@_#<\\$`]", token):
        return False
    inner = token[: -len(stop + closers)].rstrip("\"'”’»)]")
    if not inner or unicodedata.category(inner[-1])[0] not in "LMN":  # M: the vowel signs of Hindi
        return False
    return not set(stop) - set("!?") or (stop == "." and bool(closers) and not set(closers) - set("\"'”’»)]*"))


def _v2_records(prompt: Prompt, start: int, end: int) -> tuple[Sentence, ...]:
    """Sentence boundaries as the v2 corpora have them; for reproducing their labels, not for new work.

    Split at blanks after . ! ? with the think tags removed; for each sentence, search its last 20 (then 10)
    characters in the whole decoded text from a cursor that starts at 0, i.e. in the question; the boundary is the
    first token at which the summed lengths of the singly decoded tokens reach the end of the match. A sentence that is
    not found is skipped, so boundary i belongs to sentence i only up to the first miss. `char_start:char_end` is the
    matched tail and `token_start` the boundary token.

    Source: find_sentence_boundary_positions of ceselder/cot-oracle, cot_utils.py, reimplemented.
    """
    body = re.sub(r"<think>|</think>", "", prompt.text[start:end]).strip()
    texts = [s.strip() for s in re.split(r"(?<=[.!?])\s+", body) if s.strip()]
    summed, total = [], 0
    for token in prompt.tokens:
        total += _decoded_length(token)
        summed.append(total)
    matches, cursor = [], 0
    for text in texts:
        tail = next((t for t in (text[-20:], text[-10:]) if prompt.text.find(t, cursor) >= 0), None)
        if tail is None:
            continue
        at = prompt.text.find(tail, cursor)
        cursor = at + len(tail)
        token = next((i for i, n in enumerate(summed) if n >= cursor), None)
        if token is not None:
            matches.append((at, cursor, token))
    return tuple(
        Sentence(i, a, b, t, t + 1, text) for i, (text, (a, b, t)) in enumerate(zip(texts, matches, strict=False))
    )


@lru_cache(maxsize=1)
def _byte_of() -> dict[str, int]:
    """Byte of each character of a byte-level BPE vocabulary: printable Latin-1 is itself, the rest is U+0100 and up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def _decoded_length(token: str) -> int:
    """Characters of one token decoded alone: each broken piece of a multi-byte character counts as U+FFFD."""
    if "▁" in token or re.fullmatch(r"<0x[0-9A-F]{2}>", token):
        what = f"sentence style 'v2' is defined for byte-level BPE tokenizers (Qwen, GPT-2), got token {token!r}. "
        raise ValueError(what + "Use style 'offsets'.")
    table = _byte_of()
    if any(c not in table for c in token):
        return len(token)
    return len(bytes(table[c] for c in token).decode("utf-8", errors="replace"))
