"""Sizes that no study has and templates that never end: refused at once, before time and memory are spent."""

from __future__ import annotations

import json
import resource
import threading
import time
from pathlib import Path

import pytest

from interp.example import Example
from interp.limits import OutOfTime, time_limit
from interp.prompt import render
from interp.tasks import read_examples
from interp.template import ChatTemplateError, apply_template
from tests.tiny import tiny_tokenizer

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(("template", "words"), [
    ("{{ 10 ** 10 ** 10 }}", "power"),
    ("{{ 'x' * 10000000000 }}", "product"),
    ("{% for", "TemplateSyntaxError"),
    ("{{ messages.a.b }}", "UndefinedError"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ("{{ ''.__class__.__mro__ }}", "SecurityError"),
    ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
    ("{{ messages | length + 'a' }}", "TypeError"),
])  # fmt: skip
def test_whatever_a_chat_template_raises_is_one_message(template: str, words: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ChatTemplateError, match=words) as error:
        apply_template(tokenizer, [("user", "hi")])
    assert "raw 'text'" in str(error.value)


@pytest.mark.slow
def test_a_chat_template_that_never_ends_is_stopped() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = ENDLESS
    began = time.process_time()
    with pytest.raises(ChatTemplateError, match="never end"):
        apply_template(tokenizer, [("user", "hi")])
    assert time.process_time() - began < 10


def test_a_time_limit_stops_a_loop_in_any_thread_and_nothing_after_it() -> None:
    def work(ends: list[str]) -> None:
        try:
            with time_limit(0.2):
                while True:
                    pass
        except OutOfTime:
            ends.append("stopped")
        for _ in range(10**6):  # what comes after is left alone
            pass
        ends.append("went on")

    results: list[list[str]] = [[], []]
    threads = [threading.Thread(target=work, args=(result,)) for result in results[1:]]
    for thread in threads:
        thread.start()
    work(results[0])
    for thread in threads:
        thread.join()
    assert results == [["stopped", "went on"]] * 2


def test_a_time_limit_that_is_kept_changes_nothing() -> None:
    for _ in range(50):
        with time_limit(5.0):
            found = sum(range(1000))
    assert found == 499_500


def test_a_row_of_many_keys_one_of_them_twice_is_refused_in_linear_time(tmp_path: Path) -> None:
    keys = ", ".join(f'"k{i}": 1' for i in range(200_000))
    (tmp_path / "a.jsonl").write_text("{" + keys + ', "k199999": 2}')
    began = time.process_time()
    with pytest.raises(ValueError, match=r"k199999.*2 times"):
        read_examples(tmp_path / "a.jsonl")
    assert time.process_time() - began < 5  # 200,000 keys compared with each other would be an hour


@pytest.mark.parametrize("limit", [512, None])
def test_a_prompt_of_megabytes_is_refused_before_it_is_tokenized(limit: int | None, tmp_path: Path) -> None:
    text = "word " * 4_000_000
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": "a", "prompt": text}) + "\n")
    example, tokenizer = read_examples(tmp_path / "a.jsonl")[0], tiny_tokenizer()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"example 'a'.*20,000,0\d\d characters"):
        render(example, tokenizer, max_length=limit)
    with pytest.raises(ValueError, match="'b'"):
        render(Example("b", text=text), tokenizer, max_length=limit)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB; its tokens alone take gigabytes


def test_a_line_beyond_every_prompt_is_refused_while_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.truncate(200_000_000)  # a sparse file of zeros: one line
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: longer than"):
        read_examples(tmp_path / "a.jsonl")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
