"""The words of the task: three domains of 14 actions, roles, conditions, tones, distractors, institutions.

An action is known by its object (`key`), which no other action shares, so a scenario event can be looked up by one
word. Every field that the log rendering uses is one word; the plain rendering uses the phrases. Synonyms come in two
sets: `alt_*` may appear in training text, `syn_*` is held out from whatever a checkpoint is fine-tuned on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a domain and its wordings.

    Attributes:
        key: the object as one word; unique over all domains, also the name of the action.
        verb, past: imperative and past form, one word each ("issue", "issued").
        noun: the object as a phrase for plain English ("the notice of inspection").
        syn_past, syn_key: held-out one-word synonyms of `past` and `key`.
        syn_noun: held-out phrase for `noun`.
        alt_past, alt_noun: a second paraphrase that training text may use.
        observable: whether a narrative can show that the action was left out. Internal determinations and
            system-side actions (CMS billing) cannot be shown as omitted.
    """

    key: str
    verb: str
    past: str
    noun: str
    syn_past: str
    syn_key: str
    syn_noun: str
    alt_past: str
    alt_noun: str
    observable: bool = True


@dataclass(frozen=True, slots=True)
class Role:
    """An actor: `word` in the log rendering, `title` in plain English, `rank` in the hierarchy (0 lowest)."""

    word: str
    title: str
    rank: int


@dataclass(frozen=True, slots=True)
class Condition:
    """A circumstance that an exception names: one word, its if-clause, and the sentences that affirm and deny it."""

    word: str
    clause: str
    present: str
    absent: str


@dataclass(frozen=True, slots=True)
class Domain:
    """A field of procedures: the manual it comes from, its 14 actions, roles from low to high rank, conditions."""

    name: str
    title: str
    actions: tuple[str, ...]
    roles: tuple[Role, ...]
    conditions: tuple[str, ...]
    institutions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tone:
    """A closing remark that carries no fact. `polarity` +1 sounds compliant, -1 sounds noncompliant."""

    words: tuple[str, str]
    sentence: str
    polarity: int
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Distractor:
    """A sentence without any action of the inventory."""

    words: tuple[str, str]
    sentence: str
    held_out: bool = False


def _actions(table: str) -> tuple[Action, ...]:
    """Rows `verb past key | noun | syn_past syn_key | syn_noun | alt_past | alt_noun [| hidden]` as actions."""
    out = []
    for line in table.strip().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        (verb, past, key), (syn_past, syn_key) = cells[0].split(), cells[2].split()
        out.append(
            Action(key, verb, past, cells[1], syn_past, syn_key, cells[3], cells[4], cells[5], cells[6:] != ["hidden"])
        )
    return tuple(out)


_LAB = _actions("""
wear wore goggles | the safety goggles | donned spectacles | the protective spectacles | put on | the eye protection
label labeled flask | the reaction flask | marked beaker | the reaction beaker | tagged | the glass vessel
calibrate calibrated balance | the analytical balance | adjusted scale | the weighing scale | tuned | the lab balance
open opened sash | the fume hood sash | raised shutter | the hood shutter | lifted | the hood window
log logged reagent | the incoming reagent | registered chemical | the incoming chemical | noted | the new reagent
wipe wiped bench | the work bench | cleaned countertop | the laboratory countertop | scrubbed | the work surface
inspect inspected cylinder | the gas cylinder | examined tank | the compressed gas tank | looked over | the gas bottle
lock locked freezer | the sample freezer | secured icebox | the specimen icebox | latched | the cold storage unit
discard discarded sharps | the used sharps | binned needles | the used needles | disposed of | the used blades
test tested eyewash | the eyewash station | tried fountain | the eye fountain | checked | the emergency eyewash
post posted sign | the hazard sign | displayed placard | the hazard placard | put up | the warning sign
seal sealed drum | the waste drum | closed barrel | the waste barrel | shut | the waste container
weigh weighed powder | the dry powder | measured granules | the dry granules | portioned | the solid compound
store stored solvent | the flammable solvent | shelved thinner | the flammable thinner | put away | the solvent bottle
""")

_FDA = _actions("""
show showed badge | the agency badge | presented credential | the agency credential | produced | the official badge
issue issued form | the inspection form | served sheet | the inspection sheet | delivered | the inspection document
photograph photographed pallet | the storage pallet | pictured skid | the storage skid | took pictures of | the rack
collect collected sample | the product sample | gathered specimen | the product specimen | took | the test portion
interview interviewed owner | the firm's owner | questioned proprietor | the firm's proprietor | spoke with | the head
review reviewed record | the batch record | studied ledger | the batch ledger | read through | the production record
tour toured plant | the processing plant | walked facility | the processing facility | went around | the works
copy copied invoice | the shipping invoice | duplicated receipt | the shipping receipt | reproduced | the sales paper
count counted carton | the damaged cartons | tallied box | the damaged boxes | numbered | the dented cartons
observe observed filler | the filling line | watched dispenser | the dispensing line | monitored | the bottling line
swab swabbed conveyor | the conveyor | sponged belt | the moving belt | sampled | the transport line
verify verified thermometer | the cooler thermometer | confirmed gauge | the cooler gauge | validated | the cooler probe
discuss discussed findings | the findings | explained deficiencies | the deficiencies | went over | the observations
ship shipped parcel | the sample parcel | mailed package | the sample package | sent off | the sealed shipment
""")

_CMS = _actions("""
check checked eligibility | the eligibility file | queried coverage | the coverage file | looked up | the plan file
obtain obtained signature | the patient signature | acquired signoff | the patient signoff | got | the signed consent
scan scanned card | the insurance card | captured identification | the insurance identification | imaged | the card
assign assigned code | the diagnosis code | allocated identifier | the diagnosis identifier | set | the code | hidden
attach attached referral | the physician referral | appended prescription | the doctor prescription | added | the note
authenticate authenticated modifier | the modifier | vetted qualifier | the qualifier | cleared | the suffix | hidden
price priced service | the billed service | valued treatment | the billed treatment | costed | the billed visit | hidden
enter entered charge | the line charge | keyed fee | the line fee | typed in | the line amount
submit submitted claim | the claim | filed application | the application for payment | transmitted | the bill
notify notified beneficiary | the beneficiary | informed patient | the patient by letter | told | the insured person
archive archived remittance | the remittance advice | preserved voucher | the payment voucher | retained | the advice
reconcile reconciled deposit | the deposit | matched payment | the payment | balanced | the incoming funds | hidden
request requested authorization | the prior authorization | sought approval | the prior approval | asked for | the pass
date dated notice | the coverage notice | stamped letter | the coverage letter | put a date on | the coverage advisory
""")

ACTIONS: dict[str, Action] = {action.key: action for action in (*_LAB, *_FDA, *_CMS)}

CONDITIONS: dict[str, Condition] = {
    row[0]: Condition(*row)
    for row in (
        ("spill", "if a spill has occurred", "A spill had occurred.", "No spill had occurred."),
        ("alarm", "if the alarm is sounding", "The alarm was sounding.", "The alarm was not sounding."),
        ("outage", "if there is a power outage", "There was a power outage.", "There was no power outage."),
        ("storm", "if a storm is under way", "A storm was under way.", "No storm was under way."),
        ("refusal", "if the firm has refused entry", "The firm had refused entry.", "The firm had not refused entry."),
        ("recall", "if a recall is in effect", "A recall was in effect.", "No recall was in effect."),
        ("emergency", "if it was an emergency visit", "It was an emergency visit.", "It was not an emergency visit."),
        (
            "transfer",
            "if the patient was transferred",
            "The patient was transferred.",
            "The patient was not transferred.",
        ),
        ("dispute", "if the bill is in dispute", "The bill was in dispute.", "The bill was not in dispute."),
    )
}

LAB_INSTITUTIONS = ("Duke", "Miami", "UCF", "UW", "Princeton", "Cornell", "Stanford", "MIT")

DOMAINS: dict[str, Domain] = {
    "lab_safety": Domain(
        "lab_safety",
        "laboratory safety manual",
        tuple(a.key for a in _LAB),
        (Role("assistant", "laboratory assistant", 0), Role("manager", "laboratory manager", 1)),
        ("spill", "alarm", "outage"),
        LAB_INSTITUTIONS,
    ),
    "fda_inspection": Domain(
        "fda_inspection",
        "Investigations Operations Manual",
        tuple(a.key for a in _FDA),
        (Role("investigator", "field investigator", 0), Role("supervisor", "supervisory investigator", 1)),
        ("storm", "refusal", "recall"),
        ("FDA",),
    ),
    "cms_billing": Domain(
        "cms_billing",
        "Medicare Claims Processing Manual",
        tuple(a.key for a in _CMS),
        (Role("coder", "billing coder", 0), Role("auditor", "billing auditor", 1)),
        ("emergency", "transfer", "dispute"),
        ("CMS",),
    ),
}

ROLES: dict[str, Role] = {role.word: role for domain in DOMAINS.values() for role in domain.roles}
ANYONE = "anyone"  # the requirement of a step that no rank restricts

TONES: tuple[Tone, ...] = (
    Tone(("proud", "tidy"), "The team was proud and the area was tidy.", 1),
    Tone(("calm", "careful"), "The work was calm and careful.", 1),
    Tone(("cheerful", "neat"), "Everyone was cheerful and the paperwork was neat.", 1),
    Tone(("steady", "thorough"), "The shift was steady and thorough.", 1),
    Tone(("serene", "orderly"), "The day was serene and orderly.", 1, held_out=True),
    Tone(("tense", "rushed"), "The team was tense and rushed.", -1),
    Tone(("messy", "loud"), "The area was messy and loud.", -1),
    Tone(("tired", "careless"), "Everyone looked tired and careless.", -1),
    Tone(("angry", "sloppy"), "The mood was angry and the paperwork was sloppy.", -1),
    Tone(("frantic", "chaotic"), "The day was frantic and chaotic.", -1, held_out=True),
)

DISTRACTORS: tuple[Distractor, ...] = (
    Distractor(("radio", "quiet"), "The radio in the corridor stayed quiet."),
    Distractor(("window", "bright"), "The window stayed bright all morning."),
    Distractor(("coffee", "warm"), "The coffee in the break room stayed warm."),
    Distractor(("weather", "mild"), "The weather stayed mild."),
    Distractor(("corridor", "dim"), "The corridor stayed dim."),
    Distractor(("elevator", "slow"), "The elevator stayed slow."),
    Distractor(("parking", "full"), "The parking area stayed full.", held_out=True),
    Distractor(("carpet", "blue"), "The carpet stayed blue after the renovation.", held_out=True),
)

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
SIGNALS = tuple(f"[SIG={name}]" for name in ("EXCEPTION", "STEP", "FIND", "CHECK", "OK", "VIOLATION", "DECIDE"))
LABELS = ("compliant", "noncompliant")
TASK_QUESTION = "is this compliant ?"
PLAIN_QUESTION = "Was the procedure followed? Answer with one word: compliant or noncompliant."
PLAIN_AUDIT_QUESTION = "Audit each step of the procedure, then answer: compliant or noncompliant."
AUDIT_QUESTION = "audit each step ."
_FRAME_WORDS = (
    "Procedure: Scenario: Question: . ? step needs if then becomes waived also in any order present absent skipped by "
    "mood and stayed is this compliant noncompliant audit each instead none start after late fit short user assistant"
)


def tones(polarity: int, *, held_out: bool) -> tuple[int, ...]:
    """Indices into `TONES` of one polarity (+1, -1) and one side of the lexical split."""
    return tuple(i for i, tone in enumerate(TONES) if tone.polarity == polarity and tone.held_out == held_out)


def word_list() -> list[str]:
    """Every word that a log prompt or trace can contain, without duplicates, in a fixed order.

    The order is: signals, frame words, numbers 1-9, ordinals, roles, conditions, tones, distractors, actions. A
    WordLevel tokenizer over this list (split on spaces) makes each word one token.
    """
    words = [*SIGNALS, *_FRAME_WORDS.split(), *map(str, range(1, 10)), *ORDINALS, ANYONE, *ROLES, *CONDITIONS]
    for pair in (*TONES, *DISTRACTORS):
        words.extend(pair.words)
    for action in ACTIONS.values():
        words.extend((action.verb, action.past, action.key, action.syn_past, action.syn_key))
    return list(dict.fromkeys(words))
