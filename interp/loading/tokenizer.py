"""The tokenizer of a checkpoint: as its files define it, even where the class of its model type would differ."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.checkpoint import Checkpoint
from interp.loading.files import (
    AdapterFiles,
    base_folder,
    has_tokenizer,
    read_adapter,
    read_json_object,
    tokenizer_folder,
)
from interp.loading.fingerprint import tokenizer_sha256

PROBES = (
    'The quick brown fox didn\'t jump; it said: "yes", no? 1 23 456 7,890.12 e-5\n\n  two  blanks\tand a tab\r\n',
    "def f(x):\n    return {'a': x ** 2, \"b\": [1, 2]}  # note",
    "Größe naïve façade, e\u0301 and \u00e9, \ufb01nal; Привет мир; 你好，世界。 नमस्ते; مرحبا؟ 🙂👩‍💻 \u00a0…",
)
"""Texts on which the ids of a tokenizer are compared with those of its tokenizer.json."""
_DECIDE_IDS = ("normalizer", "pre_tokenizer", "model", "decoder")


def load_tokenizer(folder: Path, where: str) -> Any:
    """The tokenizer in a folder; where there is a `tokenizer.json`, exactly that one.

    AutoTokenizer may use the class of the model type, which rebuilds the tokenizer from the vocabulary alone: another
    normaliser or pre-tokeniser and so other ids, without a warning. Its rules are therefore compared with those of
    `tokenizers.Tokenizer.from_file`; where they differ the file itself is loaded.

    Args:
        where: its name in errors, e.g. "tokenizer of base 'Qwen/Qwen3-8B'".
    Raises:
        ValueError: a file that cannot be read, a tokenizer without a vocabulary, or one that gives other ids than its
            file whichever way it is loaded; names the class.
    Warns:
        UserWarning: the class of the model type gives other ids than the file; the file was loaded.
    """
    file = folder / "tokenizer.json"
    reference = _reference(file, where) if file.is_file() else None
    tokenizer, fault = _auto(folder)
    if reference is None:
        if tokenizer is None:
            raise ValueError(
                f"{where}: transformers cannot load it from {folder} ({fault}). Convert it to a tokenizer.json."
            )
    elif tokenizer is None or not _same_rules(tokenizer, reference):
        other = fault if tokenizer is None else _difference(tokenizer, reference)
        tokenizer = _by_file(folder, reference, where)
        if other:
            warnings.warn(f"{where}: {other}; its tokenizer.json is loaded instead.", stacklevel=2)
    if len(tokenizer.get_vocab()) <= len(tokenizer.get_added_vocab()):
        raise ValueError(
            f"{where}: {folder} holds {len(tokenizer.get_vocab())} added tokens but no vocabulary. Copy the "
            "tokenizer files of the base into it, or name another folder with the checkpoint's `tokenizer` key."
        )
    return tokenizer


def tokenizers_of(
    base: Path, members: Mapping[str, Checkpoint], adapters: Mapping[str, AdapterFiles]
) -> dict[str, Any]:
    """Role -> the tokenizer of a member's prompts; None if neither adapter nor base has one.

    The one that the checkpoint's `tokenizer` names, else that of the adapter's folder if it has a vocabulary, else the
    base's. A missing chat template is taken from the base, with a warning.

    Args:
        base:     folder of the base model.
        adapters: role -> files, of the members that have an adapter.
    Raises:
        ValueError: as `load_tokenizer`.
    """
    loaded: dict[Path, Any] = {}

    def read(folder: Path, where: str) -> Any:
        if folder not in loaded:
            loaded[folder] = load_tokenizer(folder, where)
        return loaded[folder]

    first = next(iter(members.values()))
    own = read(base, f"tokenizer of base {first.base!r}") if has_tokenizer(base) else None
    return {role: _of_member(member, adapters.get(role), own, read) for role, member in members.items()}


def common_tokenizer(tokenizers: Mapping[str, Any]) -> Any:
    """The one tokenizer of several members.

    Raises:
        ValueError: they differ; in one Model a member would get the prompts of another.
    """
    if len({prompts_sha256(tokenizer) for tokenizer in tokenizers.values()}) > 1:
        raise ValueError(
            f"{', '.join(tokenizers)} have tokenizers that differ (vocabulary, chat template or special tokens), "
            "so one Model would give some of them prompts made for the others. Iterate over load_members(pair), "
            "load them one by one, or name one tokenizer for all with the checkpoints' `tokenizer` key."
        )
    return next(iter(tokenizers.values()))


def reads_clock(checkpoint: Checkpoint) -> bool:
    """Whether the chat template of a checkpoint asks for the date; no tokenizer is loaded.

    Raises:
        ValueError: as `interp.load`, for folders that do not exist.
    """
    folders = [base_folder(checkpoint, weights=False)]
    folders += [read_adapter(checkpoint).folder] if checkpoint.adapter is not None else []
    folders += [tokenizer_folder(checkpoint)] if checkpoint.tokenizer is not None else []
    return any("strftime_now" in (_template_in(folder) or "") for folder in folders)


def prompts_sha256(tokenizer: Any) -> str:
    """Digest of what decides the prompts of a tokenizer; members with equal ones may share a Model. Empty for None."""
    return "" if tokenizer is None else tokenizer_sha256(tokenizer, without=("pad_token",))


def _of_member(member: Checkpoint, files: AdapterFiles | None, own: Any, read: Any) -> Any:
    if member.tokenizer is not None:
        where = f"tokenizer {member.tokenizer!r} of {member.name!r}"
        return _with_template(read(tokenizer_folder(member), where), own, where)
    if files is None:
        return own
    where = f"tokenizer of adapter {member.adapter!r}"
    if has_tokenizer(files.folder):
        return _with_template(read(files.folder, where), own, where)
    template = _template_in(files.folder)
    if own is None or template is None or template == own.chat_template:
        return own
    warnings.warn(
        f"{where}: its folder has a chat template but no vocabulary; the template is used with the base's tokenizer.",
        stacklevel=3,
    )
    return _replaced(own, template)


def _with_template(tokenizer: Any, own: Any, where: str) -> Any:
    """`tokenizer`, with the base's chat template if it has none."""
    if tokenizer.chat_template or not getattr(own, "chat_template", None):
        return tokenizer
    warnings.warn(f"{where} has no chat template; that of the base is used.", stacklevel=4)
    return _replaced(tokenizer, own.chat_template)


def _replaced(tokenizer: Any, template: str) -> Any:
    copied = copy.deepcopy(tokenizer)
    copied.chat_template = template
    return copied


def _template_in(folder: Path) -> str | None:
    """The chat template of a folder that holds no vocabulary."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if not (folder / "tokenizer_config.json").is_file():
        return None
    template = read_json_object(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several, by name
        named = [t for t in template if isinstance(t, dict) and t.get("name") == "default"]
        template = named[0].get("template") if named else None
    return template if isinstance(template, str) else None


def _reference(file: Path, where: str) -> Any:
    from tokenizers import Tokenizer

    try:
        reference = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{where}: {file} is not readable as a tokenizer ({error}); copy it again.") from None
    reference.no_truncation()
    reference.no_padding()
    return reference


def _auto(folder: Path) -> tuple[Any, str]:
    """The tokenizer that AutoTokenizer loads from a folder, or None and the reason."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        if not isinstance(longest := tokenizer.model_max_length, int | float):  # an error at the first text, not here
            raise TypeError(f"tokenizer_config.json: model_max_length is {longest!r:.60}, expected a number")
        return tokenizer, ""
    except Exception as error:  # a tokenizer class may raise anything for files it does not expect
        return None, f"AutoTokenizer fails on it ({type(error).__name__}: {_line(error)})"


def _by_file(folder: Path, reference: Any, where: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
        if not isinstance(longest := tokenizer.model_max_length, int | float):
            raise TypeError(f"tokenizer_config.json: model_max_length is {longest!r:.60}, expected a number")
    except Exception as error:  # tokenizer_config.json may hold anything
        raise ValueError(
            f"{where}: {folder} cannot be loaded by its tokenizer.json ({type(error).__name__}: {_line(error)})."
        ) from error
    if not _same_rules(tokenizer, reference) and (why := _difference(tokenizer, reference)):
        raise ValueError(
            f"{where}: {why}, and loading the file directly does not help: tokenizer_config.json changes its "
            f"rules. Remove from it what is not in tokenizer.json."
        )
    return tokenizer


def _same_rules(tokenizer: Any, reference: Any) -> bool:
    """Whether a tokenizer gives the ids of its file on every text: equal rules and the same added tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    rules, expected = json.loads(backend.to_str()), json.loads(reference.to_str())
    added = {token["id"]: token for token in rules["added_tokens"]}
    same_added = all(
        added.get(token["id"], {}).get("content") == token["content"] for token in expected["added_tokens"]
    )
    return same_added and all(rules[part] == expected[part] for part in _DECIDE_IDS)


def _difference(tokenizer: Any, reference: Any) -> str:
    """The first probe text on which the two give different ids, in words; empty if there is none."""
    for text in PROBES:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        expected = reference.encode(text, add_special_tokens=False).ids
        if list(ids) != expected:
            at = next((i for i, (a, b) in enumerate(zip(ids, expected, strict=False)) if a != b), len(ids))
            return (
                f"the class {type(tokenizer).__name__}, which transformers takes for its model type, makes {len(ids)} "
                f"tokens of a probe text where the file makes {len(expected)} (first difference at token {at})"
            )
    return ""


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
