"""Examples from files, a folder or a Hugging Face dataset, in the common chat formats, and a choice of them.

An error names file, line and field.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from interp.prompt import Example, Message
from interp.tasks.row_files import GZ, SUFFIXES, check_limit, check_new, field_error, rows_of_path
from interp.tasks.row_files import Row as Row

FIELDS = ("id", "messages", "prompt", "text", "label", "answer", "spans", "groups")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DEVELOPER = "developer"  # OpenAI's later name of the system role


def read_examples(
    source: str | Path,
    *,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    limit: int | None = None,
) -> list[Example]:
    """Examples from rows `{id, messages | prompt | text, [label, answer, spans, groups], ...}`, in order.

    `prompt` is one user message; `text` is raw text for base models. `spans` are character ranges in the last user
    message or the text. Ids that are whole numbers become strings, labels that are booleans become 0 and 1. ShareGPT's
    `conversations`, pairs of `prompt` and `completion`, content as a list of text parts and the role `developer` (a
    system turn) are read too; a last assistant turn and a completion become `answer`. Every other key is kept in
    `metadata`.

    Args:
        source: a file (.jsonl, .ndjson, .json, .csv, .parquet, with .gz too), a folder of those (sorted by name) or a
            Hugging Face dataset id.
        split:  split of a dataset, or of a folder whose files are named after splits
            (data/train-00000-of-00001.parquet).
        config, revision: configuration and revision of a Hugging Face dataset; `config` can also name one of several
            dataset folders.
        limit:  stop after this many rows.
    Raises:
        ValueError: a bad or repeated row, with file, line, field, what it got and what to do; a source without rows, or
            without that split; labels (or names of a group) that are one text and different types.
        FileNotFoundError: no such path, and not a dataset id. ImportError: a dataset id without `datasets`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "items.jsonl"
        ...     _ = path.write_text('{"id": "a", "prompt": "Is 7 prime?", "label": "yes", "source": "quiz"}')
        ...     (example,) = read_examples(path)
        >>> example.label, dict(example.metadata)
        ('yes', {'source': 'quiz'})
    """
    check_limit(limit)
    examples: list[Example] = []
    seen: dict[str, str] = {}
    types, n_developer = _Types(), 0
    for where, row in read_rows(source, split=split, config=config, revision=revision):
        example = example_from_row(row, where)
        types.check(row, where)
        n_developer += _has_developer(row)
        check_new(seen, example.id, where, "id")
        examples.append(example)
        if len(examples) == limit:
            break
    if n_developer:
        warnings.warn(f"{source}: {n_developer} rows have turns of role 'developer', read as 'system'.", stacklevel=2)
    return examples


class _Types:
    """Values of one name that were seen: `1`, "1", true and "true" are four labels that look like two in any table."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[object, str]] = {}

    def check(self, row: Mapping[str, Any], where: str) -> None:
        """Raises ValueError naming both lines where a value looks like an earlier one of another type."""
        groups = row.get("groups")
        named = {"label": row.get("label")} | (
            {f"groups.{k}": v for k, v in groups.items()} if isinstance(groups, dict) else {}
        )
        for name, value in named.items():
            for form in _forms(value):
                other, at = self._seen.setdefault((name, form), (value, where))
                if _kind(other) != _kind(value):
                    what = f"one type for what looks the same; {other!r} ({_kind(other)}) is at {at}"
                    do = "Write both the same way, as text or as numbers."
                    raise field_error(where, name, what, f"{value!r} ({_kind(value)})", do)


def _forms(value: object) -> tuple[str, ...]:
    """Texts that a value may be taken for."""
    if isinstance(value, bool):
        return (str(value).lower(), str(int(value)))
    if isinstance(value, float) and value.is_integer():
        return (str(int(value)),)
    return (str(value).strip().lower(),) if isinstance(value, str | int | float) else ()


def _kind(value: object) -> str:
    return {bool: "true or false", str: "text"}.get(type(value), "a number")


def _has_developer(row: Mapping[str, Any]) -> bool:
    turns = row.get("messages") or row.get("prompt")
    return isinstance(turns, list) and any(isinstance(t, dict) and t.get("role") == _DEVELOPER for t in turns)


def read_rows(
    source: str | Path, *, split: str = "train", config: str | None = None, revision: str | None = None
) -> Iterator[Row]:
    """(where, row) of every row of a source; `where` names file and line, for error messages."""
    path, n = Path(source), 0
    if "\0" in str(source):
        raise ValueError(f"{source!r}: a path cannot hold NUL.")
    if path.exists():
        rows = rows_of_path(path, split=split, config=config)
    elif _HUB_ID.fullmatch(str(source)) and path.suffix not in (*SUFFIXES, GZ):
        rows = _hub(str(source), split, config, revision)
    else:
        raise FileNotFoundError(f"{source}: no such file or folder, and not a Hugging Face dataset id (owner/name).")
    for n, row in enumerate(rows, 1):  # noqa: B007
        yield row
    if n == 0:
        raise ValueError(f"{source}: expected at least one row, got none. Check that the file is complete.")


def example_from_row(row: Mapping[str, Any], where: str) -> Example:
    """One example from one input row; None counts as absent. Raises ValueError that starts with `where`."""
    row = our_shape({key: value for key, value in row.items() if value is not None}, where)
    ways = [key for key in ("messages", "prompt", "text") if key in row]
    if len(ways) != 1:
        renamed = next((f"Did you mean {RENAMES[k]!r} by {k!r}? Rename it." for k in row if k in RENAMES), None)
        near = get_close_matches("prompt", [k for k in row if k not in FIELDS], n=1)
        hint = (
            f"Did you mean 'prompt' by {near[0]!r}?" if near else renamed or "Rename the others if they are metadata."
        )
        raise field_error(where, "messages", "exactly one of messages, prompt, text", ways or sorted(row), hint)
    typed = {
        "id": _id(row, where),
        "label": _label(row, where),
        "answer": _text(row, "answer", where) if "answer" in row else None,
        "spans": _spans(row, where),
        "groups": _groups(row, where),
    }
    if ways == ["text"]:
        typed["text"] = _text(row, "text", where)
    else:
        typed["messages"] = _messages(row, where) if ways == ["messages"] else (_user(row, where),)
    try:
        return Example(**typed, metadata={k: v for k, v in row.items() if k not in FIELDS})
    except ValueError as error:
        raise ValueError(f"{where}, {error}") from None


def _id(row: Mapping[str, Any], where: str) -> str:
    if "id" not in row:
        near = get_close_matches("id", [k for k in row if k not in FIELDS], n=1)
        do = f"Did you mean {near[0]!r}? Rename it." if near else "Add one; results are joined by it."
        raise field_error(where, "id", "an id", sorted(row), do)
    if isinstance(row["id"], int) and not isinstance(row["id"], bool):
        return str(row["id"])
    return _text(row, "id", where)


def _text(row: Mapping[str, Any], name: str, where: str, at: str | None = None) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise field_error(where, at or name, "text that is not empty", value, "Fill it in or remove the row.")
    return value


def _user(row: Mapping[str, Any], where: str) -> Message:
    return Message("user", _text(row, "prompt", where))


def _messages(row: Mapping[str, Any], where: str) -> tuple[Message, ...]:
    turns = row["messages"]
    if not isinstance(turns, list) or not turns:
        raise field_error(where, "messages", "a list of {role, content}", turns, "Use 'prompt' for one user message.")
    for i, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise field_error(
                where, f"messages[{i}]", "an object with role and content", turn, "Write it as {role, content}."
            )
        extra = [k for k, v in turn.items() if k not in ("role", "content") and v is not None]
        if extra:
            do = "It would not be rendered; move it into the content or out of the message."
            raise field_error(where, f"messages[{i}]", "only role and content", extra, do)
    out = []
    for i, turn in enumerate(turns):
        role, place = _text(turn, "role", where, f"messages[{i}].role"), f"messages[{i}].content"
        message = {"content": text_of(turn.get("content"), where, place)}
        out.append(Message("system" if role == _DEVELOPER else role, _text(message, "content", where, place)))
    return tuple(out)


def _label(row: Mapping[str, Any], where: str) -> str | int | float | None:
    label = row.get("label")
    if isinstance(label, bool):
        return int(label)
    if label is not None and not isinstance(label, str | int | float):
        raise field_error(where, "label", "text or a number", label, "Put structured labels under another key.")
    return label


def _spans(row: Mapping[str, Any], where: str) -> dict[str, tuple[int, int]]:
    raw_spans = row.get("spans", {})
    if not isinstance(raw_spans, dict):
        raise field_error(where, "spans", "an object {name: [start, end]}", raw_spans, "Name every span.")
    spans: dict[str, tuple[int, int]] = {}
    for name, value in raw_spans.items():
        if value is None:
            continue  # Parquet gives every row the union of all names
        whole = isinstance(value, list | tuple) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        if not whole or len(value) != 2:
            raise field_error(where, f"spans.{name}", "[start, end] in characters", value, "Give two whole numbers.")
        spans[name] = (value[0], value[1])
    return spans


def _groups(row: Mapping[str, Any], where: str) -> dict[str, str]:
    raw_groups = row.get("groups", {})
    if not isinstance(raw_groups, dict):
        raise field_error(where, "groups", "an object {name: group}", raw_groups, "Name every grouping.")
    groups = {}
    for name, value in raw_groups.items():
        if value is None:
            continue
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            raise field_error(where, f"groups.{name}", "text or a whole number", value, "Give the group a name.")
        groups[name] = str(value)
    return groups


def _hub(name: str, split: str, config: str | None, revision: str | None) -> Iterator[Row]:
    try:
        import datasets
    except ImportError:
        what = f"{name}: not a local path, and reading a Hugging Face dataset needs the package 'datasets'. "
        raise ImportError(what + 'Install it with: pip install "diptych[datasets]", or give a file.') from None
    data = datasets.load_dataset(name, config, split=split, revision=revision)
    label = name + (f"/{config}" if config else "")
    for number, row in enumerate(data, 1):
        yield f"{label}[{split}], row {number}", dict(row)


SHAREGPT = {
    "human": "user", "user": "user", "system": "system", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant", "bot": "assistant",
}  # fmt: skip
"""Speaker of a ShareGPT turn -> role."""
RENAMES = {"question": "prompt", "instruction": "prompt", "query": "prompt", "input": "prompt", "user": "prompt",
           "promt": "prompt", "dialog": "messages", "dialogue": "messages", "chat": "messages", "content": "text",
           "output": "answer", "response": "answer", "target": "answer", "chosen": "answer"}  # fmt: skip


def our_shape(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The row with `conversations` (ShareGPT) and `completion` (prompt and completion pairs) as our fields.

    The last assistant turn of a conversation, and a completion, become `answer`: text that is read after the prompt.

    Raises:
        ValueError: starts with `where`: turns of another form; both an answer and a completion.
    """
    out = dict(row)
    if "conversations" in out and "messages" not in out:
        out["messages"] = _turns(out.pop("conversations"), where)
        _move_last_turn(out)
    if "completion" in out and "prompt" in out:
        _complete(out, where)
    if isinstance(out.get("prompt"), list):
        out["messages"] = out.pop("prompt")
    return out


def text_of(content: object, where: str, name: str) -> object:
    """The text of a message's content: parts {"type": "text", "text": ...} joined; anything else as it is.

    Raises:
        ValueError: a part that is no text.
    """
    if not isinstance(content, list) or not content:
        return content
    texts = []
    for i, part in enumerate(content):
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        text = part.get("text") if isinstance(part, Mapping) else None
        if kind not in ("text", "input_text", "output_text", None) or not isinstance(text, str):
            raise ValueError(
                f"{where}, field '{name}[{i}]': expected a part of type 'text', got {kind!r}. Only text is read; "
                f"remove the part or the row."
            )
        texts.append(text)
    return "".join(texts)


def _turns(conversations: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(conversations, list) or not all(isinstance(turn, Mapping) for turn in conversations):
        raise ValueError(
            f"{where}, field 'conversations': expected a list of {{from, value}}, got {conversations!r:.80}."
        )
    out = []
    for i, turn in enumerate(conversations):
        if "role" in turn and "content" in turn:  # ours, under ShareGPT's name
            out.append(dict(turn))
            continue
        speaker, value = turn.get("from"), turn.get("value")
        if speaker not in SHAREGPT or not isinstance(value, str):
            raise ValueError(
                f"{where}, field 'conversations[{i}]': expected {{from, value}} with from one of "
                f"{', '.join(SHAREGPT)}, got {dict(turn)!r:.80}. Rename the speaker, or remove the turn."
            )
        out.append({"role": SHAREGPT[speaker], "content": value})
    return out


def _move_last_turn(out: dict[str, Any]) -> None:
    turns = out["messages"]
    if turns and turns[-1].get("role") == "assistant" and "answer" not in out:
        out["messages"], out["answer"] = turns[:-1], turns[-1].get("content")


def _complete(out: dict[str, Any], where: str) -> None:
    completion = out.pop("completion")
    if "answer" in out:
        raise ValueError(
            f"{where}, field 'completion': there is an 'answer' too, and both follow the prompt. Keep one."
        )
    if isinstance(completion, list):  # a conversation with its last turns apart
        turns = [*(out["prompt"] if isinstance(out["prompt"], list) else []), *completion]
        if len(turns) == len(completion) or not all(isinstance(turn, Mapping) for turn in turns):
            raise ValueError(
                f"{where}, field 'completion': expected turns after a prompt of turns, got {completion!r:.80}."
            )
        del out["prompt"]
        out["messages"] = turns
        _move_last_turn(out)
        return
    out["answer"] = completion


def spread(examples: Sequence[Example], n: int | None) -> list[Example]:
    """At most `n` examples in their order, taken in turn from every cell, in a cell in turn from every group.

    The first rows of a file are often of one category and a few of its groups, and the first of a group of one
    polarity or one order of options; numbers about them say nothing of the rest. Which groups come first, and which
    examples of a group, follows from a digest of their names: it is as good as drawn, the same in every run, and does
    not depend on the order of the file. A cell is the metadata key `cell`; groups are the example's, the first named
    outermost.

    Args:
        n: None for all.

    Example:
        >>> items = [Example(str(k), text="?", groups={"story": "ab"[k // 9]}) for k in range(10)]
        >>> [e.groups["story"] for e in spread(items, 2)]
        ['a', 'b']
    """
    if n is None or len(examples) <= n:
        return list(examples)
    names = list(dict.fromkeys(name for e in examples for name in e.groups))
    keys = [(str(e.metadata.get("cell", "")), *(e.groups.get(name, e.id) for name in names), e.id) for e in examples]
    return [examples[i] for i in sorted(_in_turn(list(range(len(examples))), keys, 0)[:n])]


def _in_turn(chosen: list[int], keys: Sequence[tuple[str, ...]], depth: int) -> list[int]:
    """The chosen indices, one of every part in turn; parts by the key at `depth`, ordered inside by the next one."""
    if len(chosen) < 2 or depth == len(keys[0]):
        return chosen
    parts: dict[str, list[int]] = {}
    for i in chosen:
        parts.setdefault(keys[i][depth], []).append(i)
    turns = [_in_turn(parts[name], keys, depth + 1) for name in sorted(parts, key=_digest)]
    return [turn[k] for k in range(max(map(len, turns))) for turn in turns if k < len(turn)]


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
