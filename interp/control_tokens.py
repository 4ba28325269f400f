"""Special tokens written out in a message: kept as the text that they are, while those of the template stay tokens."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from interp.remedy import remedy

_MARKS, _STANDS = 0xF0000, 0x100000  # planes 15 and 16 are private: no text of the world has characters there


class Marker:
    """Marks special tokens in messages before a template is rendered, and tokenizes what it renders.

    Every special token j has two private characters: one that stands for it written out as text, one for the token
    itself. A copy of the tokenizer knows its special tokens under the second only, so that the written-out ones are
    nothing but characters to it.
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
    """The marker of a tokenizer, made when it is first needed."""
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
    if isinstance(vocab, dict):  # a special token that the vocabulary holds too must not be reached through it
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
