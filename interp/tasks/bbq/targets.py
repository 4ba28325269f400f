"""What the BBQ templates say: who is stereotyped (the stereo index), which templates tell one story, and splits by it.

Two sets of tags: those of the data files, and those that the paper used for Physical_appearance (`published_biased`).
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from interp.prompt import Example

Key = tuple[str, str]  # (category, question_index)
CATEGORIES = (
    *("Age", "Disability_status", "Gender_identity", "Nationality", "Physical_appearance", "Race_ethnicity"),
    *("Race_x_SES", "Race_x_gender", "Religion", "SES", "Sexual_orientation"),
)
_PERSON = {"man": "m", "boy": "m", "men": "m", "woman": "f", "women": "f", "girl": "f", "girls": "f"}
_FOUR_RACES = frozenset({"black", "african american", "latino", "hispanic"})
_TEXT_COLUMNS = ("Question_negative_stereotype", "Question_non_negative", "Ambiguous_Context")


SIDES = {"train": 0.6, "select": 0.2, "test": 0.2}
MAX_QUADS = 16


class Option(NamedTuple):
    """One answer option of a row: the option as shown, and its text and group tag from `answer_info`."""

    shown: str
    text: str
    tag: str

    @property
    def is_unknown(self) -> bool:
        return self.tag.strip().casefold() == "unknown"


@dataclass(frozen=True)
class Template:
    """One template id: its stereotyped groups (or races with a second attribute), and its texts with slots.

    Attributes:
        groups: normalised stereotyped groups, of a category with one attribute.
        race, var2: stereotyped races and gender ("m", "f") or SES ("low", "high"), of an intersectional category.
        names:  whether its people are named by proper names.
        texts:  both questions and the ambiguous context, slots as "_", in lower case.
    """

    key: Key
    groups: frozenset[str] = frozenset()
    race: frozenset[str] = frozenset()
    var2: str | None = None
    names: bool = False
    texts: frozenset[str] = frozenset()


def read_templates(folder: Path) -> dict[Key, Template]:
    """The 343 templates of the official folder `templates/`; versions a-d of a template are joined.

    Raises:
        ValueError: a category has no file, or a file lacks a column.
    """
    templates: dict[Key, Template] = {}
    for category in CATEGORIES:
        path = folder / f"new_templates - {category}.csv"
        if not path.is_file():
            raise ValueError(f"{path}: not found. Copy the whole folder 'templates' of the BBQ repository.")
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), 1):
                one = _template(category, row, f"{path.name}, row {number}")
                same = templates.get(one.key, one)
                groups, texts = one.groups | same.groups, one.texts | same.texts
                templates[one.key] = Template(one.key, groups, one.race | same.race, one.var2, one.names, texts)
    return templates


def _template(category: str, row: Mapping[str, str], where: str) -> Template:
    crossed = "_x_" in category
    needed = ("Q_id", *_TEXT_COLUMNS, "Known_stereotyped_race" if crossed else "Known_stereotyped_groups")
    if missing := [c for c in needed if not row.get(c)]:
        raise ValueError(f"{where}, column {missing[0]!r}: expected a value, got none. Use the official template file.")
    number = row["Q_id"].strip()
    texts = frozenset(_slotless(row[c]) for c in _TEXT_COLUMNS)
    if not crossed:
        groups = known_groups(_members(row["Known_stereotyped_groups"]))
        return Template((category, number), groups, names=int(number) > 25, texts=texts)
    race = frozenset(m.casefold() for m in _members(row["Known_stereotyped_race"]))
    var2 = row["Known_stereotyped_var2"].strip().casefold().removesuffix("ses")
    named = row["Proper_nouns_only"].strip().upper() == "TRUE"
    return Template((category, number), race=race, var2=var2, names=named, texts=texts)


def _members(cell: str) -> list[str]:
    """`["low SES", "x"]` as a list; the cells are not always valid JSON."""
    return [m.strip() for m in re.sub(r'["\[\]]', "", cell).split(",") if m.strip()]


def _slotless(text: str) -> str:
    return re.sub(r"\{\{.*?\}\}", "_", text).lower().strip()


def known_groups(members: Iterable[str]) -> frozenset[str]:
    """Stereotyped groups in the form that tags are compared with: case folded, people as m and f, trans joined."""
    folded = {_PERSON.get(m.casefold(), m.casefold().replace(" ses", "ses")) for m in members}
    return frozenset({"trans"}) if any(m.startswith("trans") for m in folded) else frozenset(folded)


def stereo_index(template: Template, options: Sequence[Option], *, is_negative: bool) -> int | None:
    """Index of the answer that follows the stereotype: the target, or in a non-negative question the other person.

    The target is the one option that belongs to a stereotyped group; None where there is not exactly one. The polarity
    correction is in here; the official `target_loc` holds it too, so neither is to be flipped again.

    Source: BBQ_results_metadata.R of nyu-mll/BBQ, with set membership in place of its substring matches.
    """
    targets = [i for i, hit in enumerate(_is_target(template, options)) if hit]
    if len(targets) != 1:
        return None
    others = [i for i, o in enumerate(options) if i != targets[0] and not o.is_unknown]
    return targets[0] if is_negative else others[0]


def _is_target(template: Template, options: Sequence[Option]) -> list[bool]:
    if template.var2 is None:
        return [not o.is_unknown and in_groups(template, o) for o in options]
    pairs = [split_tag(template.key[0], o) for o in options]
    races = _narrowed(template.race, {race for race, _ in pairs})
    return [race in races and var2 == template.var2 for race, var2 in pairs]


def in_groups(template: Template, option: Option) -> bool:
    tag = re.sub(r"^[MF]-", "", option.tag.strip()).casefold()  # names carry gender and race, as in F-Black
    if "trans" in template.groups:
        return tag.startswith("trans")
    by_text = template.key[0] == "Nationality" and option.text.strip(" {}").casefold() in template.groups
    return by_text or _PERSON.get(tag, tag) in template.groups  # tags of nationalities are regions, hence the text


def split_tag(category: str, option: Option) -> Key:
    """(race, gender or SES) of an option of an intersectional row, case folded; ("unknown", "unknown") of that option.

    `F-Black` -> ("black", "f"); `lowSES-M-Latino` -> ("latino", "low"). In Race_x_gender " man" and " woman" in the
    text win over the tag, and a missing race is Latino (rows with "Latina" have empty tags).
    """
    if option.is_unknown:
        return "unknown", "unknown"
    tag = option.tag.strip()
    if category == "Race_x_SES":
        level = re.match(r"(low|high)SES-?", tag, re.IGNORECASE)
        rest = tag[level.end() :] if level else tag
        return re.sub(r"^[MF]-", "", rest).strip("- ").casefold(), level[1].casefold() if level else ""
    gender, race = tag[:1], tag[2:]
    gender_word = re.search(r"\b(wo)?man\b", f"{option.text} {option.shown}".casefold())
    if gender_word:
        gender = "f" if gender_word[1] else "m"
    return (race or "Latino").casefold(), gender.casefold()


def _narrowed(races: frozenset[str], present: set[str]) -> frozenset[str]:
    """Of the four races that some Race_x_SES templates list together: Latino ones only, where a row has one of them."""
    if races != _FOUR_RACES:
        return races
    pair = frozenset({"hispanic", "latino"})
    return pair if present & pair else races


def contrast(category: str, options: Sequence[Option]) -> str | None:
    """Whether the two people of an intersectional row share race and gender or SES; None in other categories."""
    if "_x_" not in category:
        return None
    (race_a, var_a), (race_b, var_b) = [split_tag(category, o) for o in options if not o.is_unknown]
    var2 = category.removeprefix("Race_x_")
    same, other = ("match", "mismatch")
    return f"{same if race_a == race_b else other}_race_{same if var_a == var_b else other}_{var2.lower()}"


def story_groups(texts: Mapping[Key, Iterable[str]], *, within_category: bool = False) -> dict[Key, str]:
    """A group name per template: templates that share a text, directly or through others, tell the same story.

    The name is that of the first template of the group, "Age-13". Splitting by these keeps label and name twins of one
    story on the same side; splitting by template does not.

    Args:
        texts: per template its questions and contexts with slots blanked, or its rendered questions.
        within_category: do not join templates of different categories.
    """
    parent: dict[Key, Key] = {key: key for key in texts}

    def root(key: Key) -> Key:
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    def order(key: Key) -> tuple[str, int]:
        return key[0], int(key[1])

    first: dict[tuple[str, str], Key] = {}
    for key in sorted(texts, key=order):
        for text in texts[key]:
            a, b = root(key), root(first.setdefault((key[0] if within_category else "", text), key))
            low, high = sorted((a, b), key=order)
            parent[high] = low
    return {key: "-".join(root(key)) for key in texts}


CATEGORY = "Physical_appearance"


def published_biased(
    template: Template, options: Sequence[Option], context: str, *, is_negative: bool
) -> tuple[int, ...] | None:
    """Options that count as biased under the uncorrected tags; None where the tags of the data files are the same.

        biased(o) <=> (tag of o in the stereotyped groups) == (the question is negative)

    The public generator looks for each of the two names in an option and lets the second one win. Where the second name
    is part of the first ("no tattoos" ... "tattoos"), both options get the second one's tag: both are biased, or none.

    Source: results/UnifiedQA of nyu-mll/BBQ has these tags in 36 rows; with them the paper's figures come out.
    """
    if template.key[0] != CATEGORY:
        return None
    people = [i for i, o in enumerate(options) if not o.is_unknown]
    names = {i: _name(options[i]) for i in people}
    short, long = sorted(people, key=lambda i: len(names[i]))
    if names[short] not in names[long] or not _is_second(names[short], names[long], context.lower()):
        return None
    return tuple(people) if in_groups(template, options[short]) == is_negative else ()


def _name(option: Option) -> str:
    """The option's text as the template has it: without "other"."""
    return re.sub(r"^(the )?(other )?", "", option.text.strip(" {}").lower())


def _is_second(short: str, long: str, context: str) -> bool:
    """Whether the context names the longer of the two first."""
    at = context.find(long)
    alone = context.replace(long, " " * len(long)).find(short)
    return 0 <= at < alone


def split_by_story(
    examples: Sequence[Example],
    *,
    seed: int,
    sides: Mapping[str, float | int] = SIDES,
    max_quads_per_template: int | None = MAX_QUADS,
) -> dict[str, list[Example]]:
    """Examples per side, each in the order given; whole stories, and therefore whole quads, on one side.

    Stories are shuffled by the seed within the category that most of their items are of, and dealt out so that every
    side comes as near to its share of the items as whole stories allow. Splitting by template instead leaks: names
    and labels twins tell the same story under two template ids.

    Args:
        sides: share of each side; they are scaled to sum to 1.
        max_quads_per_template: quads kept of one template, drawn by the seed; templates have 2 to 120 of them.
    Raises:
        ValueError: a share that is not positive, a cap below one, fewer stories than sides.
    """
    if not sides or min(sides.values()) <= 0:
        raise ValueError(f"sides: expected positive shares, got {dict(sides)}. Leave out a side that should be empty.")
    kept = _capped(examples, max_quads_per_template, seed)
    stories: dict[str, list[Example]] = defaultdict(list)
    for example in kept:
        stories[example.groups["story"]].append(example)
    if len(stories) < len(sides):
        raise ValueError(f"sides: expected at least {len(sides)} stories, got {len(stories)}. Load more categories.")
    side_of = _deal(stories, sides, seed)
    out: dict[str, list[Example]] = {side: [] for side in sides}
    for example in kept:
        out[side_of[example.groups["story"]]].append(example)
    used = [{e.groups["story"] for e in part} for part in out.values()]
    assert sum(map(len, used)) == len(set().union(*used)), "a story is on two sides"
    return out


def _deal(stories: Mapping[str, Sequence[Example]], sides: Mapping[str, float | int], seed: int) -> dict[str, str]:
    by_category: dict[str, list[str]] = defaultdict(list)
    for name, items in stories.items():
        categories = [e.groups["category"] for e in items]
        by_category[max(sorted(set(categories)), key=categories.count)].append(name)
    total, rng, side_of = sum(sides.values()), Random(seed), {}
    for category in sorted(by_category):
        names = sorted(by_category[category])
        rng.shuffle(names)
        n_items = sum(len(stories[n]) for n in names)
        counts = dict.fromkeys(sides, 0)
        for name in names:
            due = {side: share / total * n_items - counts[side] for side, share in sides.items()}
            side = max(due, key=lambda s: due[s])
            side_of[name] = side
            counts[side] += len(stories[name])
    return side_of


def _capped(examples: Sequence[Example], cap: int | None, seed: int) -> list[Example]:
    if cap is None:
        return list(examples)
    if cap < 1:
        raise ValueError(f"max_quads_per_template: expected at least 1, got {cap}. Use None for all.")
    quads: dict[str, dict[str, None]] = defaultdict(dict)
    for example in examples:
        quads[example.groups["template"]][example.groups["quad"]] = None
    kept: set[str] = set()
    for template, names in quads.items():
        kept.update(Random(f"{seed}/{template}").sample(list(names), min(cap, len(names))))
    return [e for e in examples if e.groups["quad"] in kept]
