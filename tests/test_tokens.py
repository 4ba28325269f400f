"""Tables of scores along replies: their columns, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from study.tokens import FACTS, TOKEN, read_tokens, write_tokens


def _tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    reply = dict.fromkeys(FACTS, "") | {"member": "engaged", "item": "a", "sample": 0, "is_positive": True}
    reply |= {"is_correct": None, "n_controls": 19}
    token = dict.fromkeys(TOKEN, 0.5) | {"member": "engaged", "item": "a", "sample": 0}
    token |= {"token_text": "x<script>", "span": ""}
    return pd.DataFrame([token | {"token": k} for k in (-1, 0)]), pd.DataFrame([reply])


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    tokens, replies = _tables()
    write_tokens(tmp_path, tokens.sample(frac=1.0, axis=1, random_state=0), replies)
    again, facts = read_tokens(tmp_path)
    assert list(again.columns) == list(TOKEN) and list(facts.columns) == list(FACTS)
    assert again["token"].tolist() == [-1, 0] and again["token_text"].tolist() == ["x<script>"] * 2
    assert bool(facts["is_positive"].iloc[0]) and facts["is_correct"].isna().all()


def test_a_token_without_its_reply_and_another_column_are_refused(tmp_path: Path) -> None:
    tokens, replies = _tables()
    with pytest.raises(ValueError, match="1 replies with tokens and no row"):
        write_tokens(tmp_path, tokens.assign(item="b"), replies)
    with pytest.raises(ValueError, match="mood"):
        write_tokens(tmp_path, tokens.assign(mood=1), replies)
    with pytest.raises(ValueError, match="probes along"):
        read_tokens(tmp_path / "none")
