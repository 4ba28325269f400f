"""The shapes in which chats are written in the world, as ours: {messages | prompt | text, [answer]}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
