"""The rule-aware reward for a triage reply, as a pure function. Not for clinical use."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from interp.prompt import Example
from interp.tasks.esi.replies import parse
from interp.tasks.esi.triggers import TRIGGERS, fires, rules

Reading = Literal["words", "meaning"]
URGENT = 2


@dataclass(frozen=True)
class EsiReward:
    """Values of the reward; all are to be given, as the model card prints only some of them. `OURS` is one choice.

    Args:
        exact, adjacent, other: |level - gold| = 0, 1, more.
        no_parse: no level in the reply; must be less than any reply with a level can get.
        trigger_hit:   added where a trigger of level 1 stands, gold is 1 and the reply says 1.
        trigger_miss:  taken off where it says less urgent.
        injury_miss:   taken off where an open or penetrating injury stands, gold is 1 or 2 and the reply says 3 to 5.
        pain_miss:     taken off where pain is 7 or more, gold is 2 and the reply says 3 to 5.
        most_taken_off: cap of what the three can take off together.
    Raises:
        ValueError: an order that rewards a worse reply, a negative size, or silence that is not the worst of all.
    """

    exact: float
    adjacent: float
    other: float
    no_parse: float
    trigger_hit: float
    trigger_miss: float
    injury_miss: float
    pain_miss: float
    most_taken_off: float

    def __post_init__(self) -> None:
        if not self.exact > self.adjacent > self.other:
            got = f"{self.exact}, {self.adjacent}, {self.other}"
            raise ValueError(f"reward: expected exact > adjacent > other, got {got}.")
        sizes = {k: v for k, v in asdict(self).items() if k not in ("exact", "adjacent", "other", "no_parse")}
        if bad := [name for name, value in sizes.items() if value < 0]:
            raise ValueError(
                f"reward: {', '.join(bad)} must be 0 or more: they are magnitudes; the sign is in their name."
            )
        worst = self.other - min(self.most_taken_off, self.trigger_miss + self.injury_miss + self.pain_miss)
        if self.no_parse >= worst:
            what = f"no_parse {self.no_parse} is not below {worst}, the worst of a reply with a level"
            raise ValueError(f"reward: {what}, so an unparsed reply can pay. Lower no_parse or most_taken_off.")


OURS = EsiReward(
    exact=1.0, adjacent=0.3, other=-1.0, no_parse=-2.0,
    trigger_hit=0.5, trigger_miss=0.5, injury_miss=0.5, pain_miss=0.5, most_taken_off=0.5,
)  # fmt: skip
"""no_parse, pain_miss: the model card. All others are ours; the card does not print them."""


def reward(example: Example, text: str, values: EsiReward = OURS, *, triggers: Reading = "words") -> dict[str, float]:
    """The parts of the reward of one reply, and their sum as "reward".

    Args:
        triggers: "words": any mention counts, as in the card's patterns, so "no chest tube" and "intubated last year"
            count too; "meaning": only what the narrative says is present. Report both.
    Raises:
        ValueError: an unknown reading.
    """
    if triggers not in ("words", "meaning"):
        raise ValueError(f"triggers: expected 'words' or 'meaning', got {triggers!r}.")
    predicted, gold = parse(text), int(str(example.label))
    if predicted is None:
        return {"answer": values.no_parse, "trigger": 0.0, "injury": 0.0, "pain": 0.0, "reward": values.no_parse}
    level = int(predicted)
    gap = abs(level - gold)
    parts = {"answer": (values.exact, values.adjacent)[gap] if gap < 2 else values.other}
    parts |= _modifiers(example, level, gold, values, triggers)
    taken = -sum(part for name, part in parts.items() if name != "answer" and part < 0)
    back = max(0.0, taken - values.most_taken_off)
    return parts | {"reward": sum(parts.values()) + back}


def _modifiers(example: Example, level: int, gold: int, values: EsiReward, triggers: Reading) -> dict[str, float]:
    start, end = example.spans["narrative"]
    note = example.content[start:end]
    fired = fires(note) if triggers == "words" else [t.rule for t in rules(note) if t.polarity == "present"]
    levels = {TRIGGERS[rule][1] for rule in fired}
    trigger = 0.0
    if 1 in levels and gold == 1:
        trigger = values.trigger_hit if level == 1 else -values.trigger_miss
    missed = level > URGENT
    injury = -values.injury_miss if URGENT in levels and gold <= URGENT and missed else 0.0
    has_pain = example.metadata["rule.pain"] == "present"
    pain = -values.pain_miss if has_pain and gold == URGENT and missed else 0.0
    return {"trigger": trigger, "injury": injury, "pain": pain}
