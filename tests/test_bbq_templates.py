"""The stereo index and story groups of BBQ on hand-made rows: the cases where substring matching fails."""

from __future__ import annotations

import pytest

from interp.tasks.bbq.targets import Option, Template, contrast, known_groups, split_tag, stereo_index, story_groups

FOUR = {"black", "african american", "latino", "hispanic"}
UNKNOWN = Option("Unknown", "Unknown", "unknown")


def people(*tags: str, texts: tuple[str, ...] | None = None) -> list[Option]:
    named = texts or tags
    return [UNKNOWN, *(Option(f"The {x}", x, t) for x, t in zip(named, tags, strict=True))]


@pytest.mark.parametrize(
    ("category", "known", "options", "target"),
    [
        ("Age", ["old"], people("nonOld", "old"), 2),
        ("Age", ["nonOld"], people("nonOld", "old"), 1),
        ("Gender_identity", ["F"], people("man", "woman"), 2),
        ("Gender_identity", ["M"], people("F", "M"), 2),
        ("Gender_identity", ["girls"], people("boy", "girl"), 2),
        ("Gender_identity", ["Transgender women", "transgender men", "trans"], people("nonTrans_F", "trans_F"), 2),
        ("Race_ethnicity", ["Black", "African American"], people("African", "African American"), 2),
        ("Race_ethnicity", ["Black", "African American"], people("African", "Black"), 2),
        ("Race_ethnicity", ["Middle Eastern", "Arab"], people("M-Asian", "M-Arab"), 2),
        ("Race_ethnicity", ["Native American"], people("Native American", "African American"), 1),
        ("Nationality", ["British"], people("Europe", "Europe", texts=("Irish", "British")), 2),
        ("SES", ["low SES"], people("highSES", "lowSES"), 2),
        ("Physical_appearance", ["pregnant"], people("notPregnant", "pregnant"), 2),
        ("Race_ethnicity", ["Black", "African American"], people("African American", "Black"), None),
        ("Religion", ["Muslim"], people("Jewish", "Hindu"), None),
        ("Physical_appearance", ["visibleDifference"], people("noVisibleDifference", "noVisibleDifference"), None),
    ],
)
def test_target_by_set_membership_where_substrings_fail(category, known, options, target):
    template = Template((category, "1"), known_groups(known))
    assert stereo_index(template, options, is_negative=True) == target
    other = None if target is None else 3 - target
    assert stereo_index(template, options, is_negative=False) == other


@pytest.mark.parametrize(
    ("category", "race", "var2", "options", "target"),
    [
        ("Race_x_gender", {"black", "african american"}, "m", people("F-Black", "M-Black"), 2),
        ("Race_x_gender", {"black", "african american"}, "m", people("M-African", "M-Black"), 2),
        ("Race_x_gender", {"hispanic", "latino"}, "f", people("M-Latino", "", texts=("Latino man", "Latina woman")), 2),
        ("Race_x_gender", {"asian"}, "f", people("F-White", "F-Asian"), 2),
        ("Race_x_gender", {"asian"}, "f", people("M-White", "M-Asian"), None),
        ("Race_x_SES", {"black", "african american"}, "low", people("lowSES-African", "lowSES-African American"), 2),
        ("Race_x_SES", FOUR, "low", people("highSES-M-Black", "lowSES-F-Black"), 2),
        ("Race_x_SES", FOUR, "low", people("lowSES-Black", "lowSES-HIspanic"), 2),
        ("Race_x_SES", {"asian"}, "high", people("lowSES-Asian", "highSES-Asian"), 2),
    ],
)
def test_intersectional_target_needs_race_and_second_attribute(category, race, var2, options, target):
    template = Template((category, "1"), race=frozenset(race), var2=var2)
    assert stereo_index(template, options, is_negative=True) == target
    assert stereo_index(template, options, is_negative=False) == (None if target is None else 3 - target)


def test_intersectional_tags_split_into_race_and_attribute():
    cases = {"highSES-M-Black": ("black", "high"), "lowSES-Middle Eastern": ("middle eastern", "low")}
    assert {t: split_tag("Race_x_SES", Option("", "", t)) for t in cases} == cases
    assert split_tag("Race_x_gender", Option("", "", "F-Roma")) == ("roma", "f")
    assert split_tag("Race_x_gender", Option("The Latina woman", "", "")) == ("latino", "f")
    assert split_tag("Race_x_gender", Option("Norman Woo", "Norman Woo", "F-Asian")) == ("asian", "f")
    assert contrast("Race_x_gender", people("F-Black", "M-Black")) == "match_race_mismatch_gender"
    assert contrast("Race_x_SES", people("lowSES-Black", "lowSES-White")) == "mismatch_race_match_ses"
    assert contrast("Age", people("old", "nonOld")) is None


def test_story_groups_join_through_a_third_template_and_keep_the_first_name():
    texts = {("A", "2"): {"x"}, ("A", "10"): {"x", "y"}, ("B", "1"): {"y"}, ("B", "2"): {"z"}}
    assert story_groups(texts) == {("A", "2"): "A-2", ("A", "10"): "A-2", ("B", "1"): "A-2", ("B", "2"): "B-2"}
    assert story_groups(texts, within_category=True)["B", "1"] == "B-1"
