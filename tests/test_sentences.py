"""Sentence records: the measured faults of earlier code as regressions, and the properties that replace them."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.positions import SentenceEnds
from interp.prompt import Example, Message, Prompt, render
from interp.sentences import sentence_records, split_sentences
from tests.tiny import tiny_tokenizer

QUESTION = "The train leaves at noon. How far does it go?"


def cot(tokenizer, answer: str, question: str = QUESTION) -> Prompt:
    return render(Example("q", (Message("user", question),), answer=answer), tokenizer)


def split(text: str) -> list[str]:
    return [text[a:b] for a, b in split_sentences(text)]


def reference_v2(tokenizer, prompt: Prompt, cot_text: str) -> list[int]:
    """The original's boundaries from its definition, with the tokenizer's own decode, token by token."""
    body = re.sub(r"<think>|</think>", "", cot_text).strip()
    decoded, found, cursor = tokenizer.decode(prompt.ids), [], 0
    for sentence in filter(None, (s.strip() for s in re.split(r"(?<=[.!?])\s+", body))):
        for n in (20, 10):
            tail = sentence[-n:]
            at = decoded.find(tail, cursor)
            if at >= 0:
                cursor, length = at + len(tail), 0
                for i, token in enumerate(prompt.ids):
                    length += len(tokenizer.decode([token]))
                    if length >= cursor:
                        found.append(i)
                        break
                break
    return found


# --- faults measured in the earlier code ----------------------------------------------------------------------------


def test_a_first_sentence_that_restates_the_problem_has_its_boundary_in_the_answer(tokenizer):
    prompt = cot(tokenizer, "The train leaves at noon. So it is lunch time.")
    ours, old = sentence_records(prompt, span="answer"), sentence_records(prompt, span="answer", style="v2")
    assert ours[0].text == old[0].text == "The train leaves at noon."
    assert ours[0].boundary >= prompt.n_prompt
    assert old[0].boundary < prompt.n_prompt  # the fault: it lies in the question
    assert ours[0].boundary - old[0].boundary > 10


def test_multi_byte_text_shifts_no_later_boundary(tokenizer):
    prompt = cot(tokenizer, "One 🙂 here. The fox 中文 jumps. Done now.")
    ours, old = sentence_records(prompt, span="answer"), sentence_records(prompt, span="answer", style="v2")
    assert [tokenizer.decode([prompt.ids[s.boundary]]) for s in ours] == [".", ".", "."]
    assert [s.text for s in ours] == ["One 🙂 here.", "The fox 中文 jumps.", "Done now."]
    shifts = [a.boundary - b.boundary for a, b in zip(ours, old, strict=True)]
    assert min(shifts) > 0  # the fault: 4 pieces of the emoji count 4 characters instead of 1


def test_a_sentence_that_is_not_found_does_not_shift_the_labels_after_it(tokenizer):
    answer = "One is here.</think> Two is there. Three is far away."
    broken = "Alpha be</think>ta. " + answer
    prompt = cot(tokenizer, broken)
    old = sentence_records(prompt, span="answer", style="v2")
    where = {s.text: prompt.text[s.char_start : s.char_end] for s in old}
    assert where["Alpha beta."] != "Alpha beta."  # the fault: boundary i is no longer that of sentence i
    for s in sentence_records(prompt, span="answer"):
        assert prompt.text[s.char_start : s.char_end] == s.text
        assert s.text.endswith(tokenizer.decode([prompt.ids[s.boundary]]).strip())


@pytest.mark.parametrize(
    "text",
    [
        "We try fruit, e.g. apples, first.",
        "It is small, i.e. below 2.",
        "Dr. Smith and Mrs. Jones met.",
        "See Fig. 3 and Eq. (2) for it.",
        "Pi is 3.14 and half is .5 here.",
        "The U.S. army went there.",
        "Nuts, bolts etc. are cheap.",
        "1. Multiply by two.",
        "- 2. Add the rest.",
        "(a) Take the first.",
        "Wait... maybe not.",
        '"Really?" she asked.',
        "Compare A vs. B here.",
        "U.S. troops",
        "The U.S. Senate and the U.K. Parliament met.",
        "A.B. Johnson signed it.",
        "See https://a.org/x?Query=1 or mail a.b@c.de!Now",
        "We set x!=Y and z?A:B there.",
        "torch.Tensor and os.Path are names.",
        "They (U.S.A) left.",
        "We need (1) a hat and (2) a coat.",
    ],
)
def test_abbreviations_decimals_list_numbers_and_pauses_do_not_split(text):
    assert split(text) == [text]


def test_inline_lists_keep_their_numbers_together():
    assert split("Steps: 1. Do this. 2. Do that.") == ["Steps: 1. Do this.", "2. Do that."]
    assert split("The answer is: 1. So we stop.") == ["The answer is: 1.", "So we stop."]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("1. First 2. Second", ["1. First", "2. Second"]),
        ("Here we go. 1. First 2. Second", ["Here we go.", "1. First", "2. Second"]),
        ("We do: 1. First 2. Second 3. Third.", ["We do: 1. First", "2. Second", "3. Third."]),
        ("1. Compute 1 + 1 = 2. Then stop.", ["1. Compute 1 + 1 = 2.", "Then stop."]),
        ("1. Divide by 2. 2. Add it.", ["1. Divide by 2.", "2. Add it."]),
        ("1. Take 2. Then stop.\n2. Go", ["1. Take 2.", "Then stop.", "2. Go"]),
        ("1. Take 3. Then stop.", ["1. Take 3.", "Then stop."]),
        ("a. the hat b. the coat", ["a. the hat", "b. the coat"]),
    ],
)
def test_a_list_that_runs_on_in_one_line_splits_before_its_numbers_and_not_after_them(text, sentences):
    assert split(text) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Wow!!!Next one.", ["Wow!!!", "Next one."]),
        ("Is it?Yes it is.", ["Is it?", "Yes it is."]),
        ("(It is so.)Next we go.", ["(It is so.)", "Next we go."]),
        ("“It is so.”Then he left.", ["“It is so.”", "Then he left."]),
        ("क्या यह सही है?हाँ, है।", ["क्या यह सही है?", "हाँ, है।"]),
        ("真的吗?是的!好", ["真的吗?", "是的!", "好"]),
    ],
)
def test_a_missing_blank_does_not_hide_the_end_of_a_sentence(text, sentences):
    assert split(text) == sentences


def test_initials_end_a_sentence_only_before_a_word_that_opens_one():
    assert split("A.B. Yes") == ["A.B.", "Yes"]
    assert split("He lives in the U.S. He works.") == ["He lives in the U.S.", "He works."]
    assert split("We left at 6 P.M. Ann stayed.") == ["We left at 6 P.M.", "Ann stayed."]


GOLDEN_RULES = """Hello World. | My name is Jonas.
What is your name? | My name is Jonas.
There it is! | I found it.
My name is Jonas E. Smith.
Please turn to p. 55.
They closed the deal with Pitt, Briggs & Co. at noon.
Let's ask Jane and co. | They should know.
They closed the deal with Pitt, Briggs & Co. | It closed yesterday.
I can see Mt. Fuji from here.
St. Michael's Church is on 5th st. near the light.
I visited the U.S.A. last year.
I live in the E.U. | How about you?
I live in the U.S. | How about you?
I work for the U.S. Government in Virginia.
I have lived in the U.S. for 20 years.
She has $100.00 in her bag.
She has $100.00. | It is in her bag.
He teaches science (He previously worked for 5 years as an engineer.) at the local University.
Her email is Jane.Doe@example.com. | I sent her an email.
The site is: https://www.example.50.com/new-site/awesome_content.html. | Please check it out.
She turned to him, 'This is great.' she said.
She turned to him, "This is great." she said.
She turned to him, "This is great." | She held the book out to show him.
Hello!! | Long time no see.
Hello?? | Who is there?
Hello!? | Is that you?
Hello?! | Is that you?
1.) The first item | 2.) The second item
1.) The first item. | 2.) The second item.
1) The first item | 2) The second item
1) The first item. | 2) The second item.
1. The first item | 2. The second item
1. The first item. | 2. The second item.
• 9. The first item | • 10. The second item
a. The first item | b. The second item | c. The third list item
I never meant that.... | She left the store.
I wasn’t really ... well, what I mean...see . . . what I'm saying, the thing is . . . I didn’t mean it.
"Bohr [...] used the analogy of parallel stairways [...]" (Smith 55).""".splitlines()
OTHERWISE = {  # what a rule without a dictionary cannot know: where a name or an initial goes on
    "My name is Jonas E. Smith.",
    "I can see Mt. Fuji from here.",
    "I wasn’t really ... well, what I mean...see . . . what I'm saying, the thing is . . . I didn’t mean it.",
}


@pytest.mark.parametrize("rule", GOLDEN_RULES)
def test_the_golden_rules_of_pragmatic_segmenter_hold_but_for_those_named(rule):
    """Source: github.com/diasks2/pragmatic_segmenter, README, Golden Rules (English); pysbd is tested with them too."""
    pieces = rule.split(" | ")
    assert (split(" ".join(pieces)) == pieces) == (rule not in OTHERWISE)


@pytest.mark.parametrize("line", ["\r\n", "\r"])
def test_the_kind_of_line_break_changes_no_sentence(line):
    text = "One is.\nTwo is\nwrapped.\n\nThree\n- four\n- five\n1. Six\n2. Seven\n \nEight! 1. Nine 2. Ten\n"
    other = text.replace("\n", line)
    assert [s.replace(line, "\n") for s in split(other)] == split(text)
    assert len(split(text)) == 10
    assert not [s for s in split(other) if s != s.strip()]


def test_a_long_list_in_one_line_takes_linear_time():
    text, start = "1. Go. " + "a. 7. so " * 20_000, time.perf_counter()
    split_sentences(text)
    assert time.perf_counter() - start < 5


def test_answers_that_look_like_abbreviations_still_end_a_sentence():
    assert split("The answer is no. So we stop.") == ["The answer is no.", "So we stop."]
    assert split("It must be C. Then we stop.") == ["It must be C.", "Then we stop."]


def test_bullets_paragraphs_and_latex_split_without_stops():
    assert split("- take two\n- add three\n* stop") == ["- take two", "- add three", "* stop"]
    assert split("First we count\n\nThen we add\n \nDone") == ["First we count", "Then we add", "Done"]
    assert split("Hence \\[x=3.\\] So \\(y=4.\\) Then") == ["Hence \\[x=3.\\]", "So \\(y=4.\\)", "Then"]
    assert split("A. one man\nB. two men") == ["A. one man", "B. two men"]
    assert split("a wrapped line\ngoes on here.") == ["a wrapped line\ngoes on here."]


def test_the_tail_after_the_last_stop_and_short_sentences_are_kept():
    assert split("It is. No. So the answer is five") == ["It is.", "No.", "So the answer is five"]


def test_quotes_markdown_and_full_width_stops_close_with_their_sentence():
    assert split('He said "stop." **Then.** We left!') == ['He said "stop."', "**Then.**", "We left!"]
    assert split("第一句。第二句！” 完") == ["第一句。", "第二句！”", "完"]
    assert split("Really?! Yes… It is.") == ["Really?!", "Yes…", "It is."]


def test_think_tags_are_no_part_of_any_sentence():
    text = "<think>\nFirst one. Second\n</think>\n\nThe answer is B."
    assert split(text) == ["First one.", "Second", "The answer is B."]


def test_a_long_run_of_dots_takes_linear_time():
    text, start = "a " + "." * 100_000 + "x", time.perf_counter()
    assert split(text) == [text]
    assert time.perf_counter() - start < 1  # a quadratic search takes about 20 s


# --- properties -----------------------------------------------------------------------------------------------------

MARKS = [
    ". ",
    "! ",
    "? ",
    "\n\n",
    "\n- ",
    "1. ",
    '." ',
    "..",
    "!!!Next ",
    ".)Next ",
    " 2. Go ",
    "\r\n",
    "U.S. ",
    " ",
    "<think>",
    "</think>",
]
PIECES = st.sampled_from(["the fox", "e.g.", "3.5", "Dr.", " 🙂 ", "中文。", *MARKS])


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=14))
def test_every_letter_is_in_exactly_one_sentence_and_sentences_are_in_order(pieces):
    text = "".join(pieces)
    ranges = split_sentences(text)
    assert all(a < b for a, b in ranges)
    assert all(left[1] <= right[0] for left, right in pairwise(ranges))
    assert all(text[a:b] == text[a:b].strip() for a, b in ranges)
    inside = {i for a, b in ranges for i in range(a, b)}
    tags = {i for m in re.finditer(r"</?think>", text) for i in range(*m.span())}
    assert all(i in inside for i, c in enumerate(text) if c.isalnum() and i not in tags)
    assert not inside & tags


@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=14))
def test_records_match_their_characters_and_boundaries_are_last_tokens(pieces):
    tok = tiny_tokenizer()
    prompt = cot(tok, "so " + "".join(pieces))
    records = sentence_records(prompt, span="answer")
    assert [s.index for s in records] == list(range(len(records)))
    for s in records:
        assert prompt.text[s.char_start : s.char_end] == s.text
        assert s.boundary == max(i for i, (a, _) in enumerate(prompt.offsets) if a < s.char_end)
        assert s.token_start == min(i for i, (_, b) in enumerate(prompt.offsets) if b > s.char_start)
        assert s.token_start >= prompt.n_prompt
    ends = [s.boundary for s in records]
    assert ends == sorted(set(ends))


def test_sentences_that_end_in_one_token_are_one_record():
    prompt = Prompt("q", text="A! B! C?", ids=(1, 2), offsets=((0, 5), (5, 8)), spans={"prompt": (0, 8)})
    records = sentence_records(prompt)
    assert [(s.index, s.text, s.boundary) for s in records] == [(0, "A! B!", 0), (1, "C?", 1)]


# --- reproduction of the older style --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        "The fox jumps. It is quick! Is it?",
        "<think>We see, e.g. a fox.\n- no stop\n\nHere</think> So it is 🙂 five. 中文 is two. Done.",
        "The train leaves at noon. How far does it go? Alpha be</think>ta. Yes.",
    ],
)
def test_v2_equals_the_original_boundaries(tokenizer, answer):
    prompt = cot(tokenizer, answer)
    got = [s.boundary for s in sentence_records(prompt, span="answer", style="v2")]
    assert got == reference_v2(tokenizer, prompt, answer)
    assert SentenceEnds(style="v2").resolve(prompt) == tuple(dict.fromkeys(got))


@pytest.mark.parametrize("token", ["▁the", "<0xE4>"])
def test_v2_refuses_tokenizers_that_are_not_byte_level(token):
    prompt = Prompt("q", text="the.", ids=(1,), offsets=((0, 4),), spans={"prompt": (0, 4)}, tokens=(token,))
    with pytest.raises(ValueError, match=r"byte-level.*'offsets'"):
        sentence_records(prompt, style="v2")


def test_a_missing_span_is_refused_with_the_spans_that_are_there(tokenizer):
    with pytest.raises(ValueError, match=r"'q': no span 'scenario'.*answer, prompt"):
        sentence_records(cot(tokenizer, "Yes."), span="scenario")


@pytest.mark.parametrize(
    "text", ["यह एक वाक्य है। यह दूसरा है।", "هل هذا صحيح؟ نعم هو كذلك؟", "یہ ایک ہے۔ یہ دو ہے۔", "一句｡两句｡"]
)
def test_stops_of_other_scripts_end_a_sentence(text):
    assert len(split_sentences(text)) == 2
