"""Pre-registration: what a study will claim, at which margins, written down with its digest before it is run.

`diptych study plan --register` writes `registration.json` into the run folder; the report says which claims were
registered, which were not, and what of the study has changed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from interp.checkpoint import MEMBERS
from interp.io.read import read_json
from interp.remedy import remedy
from interp.tasks.protocol import Task, hook
from study.analyses.eval.claims import ADVERSARIAL, BINDING, EQUIVALENT, SEPARATES, TRAINING
from study.analyses.registry import analysis
from study.folders import REGISTRATION

if TYPE_CHECKING:
    from study.config import Study
    from study.ledger import Claim

_SHOWN = 60


@dataclass(frozen=True)
class Registration:
    """What was written down.

    Attributes:
        name, seed, claim_margin, smallest_effects: of the study.
        claims:  key -> the claim in words.
        study:   every key of the resolved study, dotted, with its value as text.
        ended:   steps whose results existed already when it was written; none of a study that is registered first.
        diptych: version of the package.
        sha256:  digest of all of these.
    """

    name: str
    seed: int
    claim_margin: float
    smallest_effects: Mapping[str, float]
    claims: Mapping[str, str]
    study: Mapping[str, str]
    ended: tuple[str, ...]
    diptych: str
    sha256: str = ""


@dataclass(frozen=True)
class Registered:
    """What a report says of a registration.

    Attributes:
        missing: registered claims that the ledger does not make.
        changed: keys of the study with another value now: `eval.temperature: 0.0, then 0.1`.
        is_whole: whether the file still has the digest that it was written with.
    """

    registration: Registration
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    is_whole: bool


def register(study: Study, out: Path) -> Registration:
    """Write the registration of a study into its run folder.

    Raises:
        ValueError: the folder has another one already.
    """
    from interp.io.files import write_json

    made, path = registration_of(study, out), out / REGISTRATION
    if path.is_file():
        known = read_registration(out)
        if known is None or known.sha256 == made.sha256 or known.study == made.study:
            return known or made
        raise ValueError(
            f"{path}: a different study is registered here (sha256 {known.sha256[:12]}). A registration is never "
            f"overwritten: give the changed study another folder{remedy(' with {out}')}, or run it as it is; the "
            "report lists what changed."
        )
    write_json(path, asdict(made))
    return made


def registration_of(study: Study, out: Path) -> Registration:
    """The registration of a study as it is now, for a run in `out`."""
    from interp.io.yaml_text import parse_yaml
    from study.analyses.heads.step import with_pairs
    from study.config import resolved_yaml
    from study.folders import RUN
    from study.run.digest import package_version
    from study.run.state import read_run

    study = with_pairs(study, out)
    steps = read_run(out).steps if (out / RUN).is_file() else {}
    ended = tuple(name for name, state in steps.items() if state.status == "done")
    made = Registration(
        study.name,
        study.seed,
        study.claim_margin,
        asdict(study.smallest_effects),
        planned_claims(study),
        flat(parse_yaml(resolved_yaml(study, out), study.name)),
        ended,
        package_version(),
    )
    return Registration(**{**asdict(made), "ended": ended, "sha256": digest_of(made)})


def digest_of(registration: Registration) -> str:
    """SHA-256 of everything but the digest itself."""
    content = {key: value for key, value in asdict(registration).items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_registration(folder: Path) -> Registration | None:
    """The registration in a run folder; None where there is none.

    Raises:
        ValueError: a file that cannot be read.
    """
    path = folder / REGISTRATION
    if not path.is_file():
        return None
    return read_json(path, Registration, "Restore the file.")


def compare(registration: Registration, study: Mapping[str, object], ledger: Sequence[Claim]) -> Registered:
    """A registration and the run that followed: claims that are missing, keys of the study that have changed."""
    made, now = {claim.key for claim in ledger}, flat(study)
    missing = tuple(text for key, text in registration.claims.items() if key not in made)
    keys = [*registration.study, *(key for key in now if key not in registration.study)]
    changed = tuple(
        f"{key}: {_cut(registration.study.get(key, 'not given'))}, then {_cut(now.get(key, 'not given'))}"
        for key in keys
        if registration.study.get(key) != now.get(key)
    )
    return Registered(registration, missing, changed, digest_of(registration) == registration.sha256)


def flat(study: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Dotted keys with their values as text; lists whole."""
    out: dict[str, str] = {}
    for key, value in study.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            out |= flat(value, f"{name}.")
        else:
            out[name] = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return out


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def planned_claims(study: Study) -> dict[str, str]:
    """Key -> text of every claim that is named before the run; those of a maximum (the largest head) are not."""
    from interp.tasks.protocol import load_task

    task = load_task(study.task.path)
    members = [m for m in study.members if m in MEMBERS] or list(study.members)
    planned: dict[str, str] = {}
    if study.eval is not None and study.pair is not None:
        roles = set(getattr(task, "CELL_ROLES", {}).values())
        texts = {
            ADVERSARIAL: (SEPARATES, "the pair separates on adversarial cells"),
            TRAINING: (EQUIVALENT, f"accuracy on the training distribution is equal within {study.claim_margin:g}"),
        }
        planned |= dict(texts[role] for role in texts if role in roles)
        if hook(task, "twin_examples") is not None:
            planned[BINDING] = "the engaged member binds step numbers in order-swapped twins"
    planned |= _probes(study, members) | _heads(study, task, members) | _steering(study, task) | _oracle(study)
    for name in study.added:
        if (own := analysis(name).planned) is not None:
            planned |= own(study, members)
    return planned


def _probes(study: Study, members: Sequence[str]) -> dict[str, str]:
    if study.probes is None:
        return {}
    out = {
        f"probes/decodable/{t}/{m}": f"{t} is linearly decodable in the {m} member"
        for t in study.probes.targets
        for m in members
    }
    if study.probes.transfer != "none":
        out |= {
            f"probes/transfer/{t}/{a}/{b}": f"a probe of {t} fitted on {a} reads {b}"
            for t in study.probes.targets
            for a in members
            for b in members
            if a != b
        }
    return out


def _heads(study: Study, task: Task, members: Sequence[str]) -> dict[str, str]:
    from study.analyses.heads.claims import carries_text, key_of, necessary_text
    from study.analyses.heads.pairs import sites_of

    if study.heads is None:
        return {}
    out = {}
    for head, member, site in product(study.heads.named, members, sites_of(task, study.heads)):
        row = {"head": head, "named": True, "decision_site": site}
        if any(not kind.startswith("patch") for kind in study.heads.kinds):
            out[key_of("necessary", row, member)] = necessary_text(head, site).format(member=f"the {member} member")
        if "patch" in study.heads.kinds:
            out[key_of("carries", row, member)] = carries_text(head, site).format(member=f"the {member} member")
    return out


def _steering(study: Study, task: Task) -> dict[str, str]:
    section = study.steering
    if section is None or section.layers is None:  # of all layers, none is named
        return {}
    scores = {"margin": f"raises the margin toward {section.toward}"}
    scores |= {"amb_commit_bias": "changes commit bias"} if hook(task, "sides") is not None else {}
    return {
        f"steering/{metric}/{member}/resid_post.{layer}": f"a direction at layer {layer} {what} in the {member} member"
        for member in (section.members if study.pair else tuple(study.members))
        for layer in _layers_of(study, member, section.layers)
        for metric, what in scores.items()
    }


def _layers_of(study: Study, member: str, words: Sequence[int | str]) -> list[int]:
    """Block indices; the model's configuration is read only where a share of its depth is named."""
    from interp.site import layer_index
    from study.analyses.shapes import layout_of

    if all(isinstance(word, int) for word in words):
        return [int(word) for word in words]
    n_layers = layout_of(study, study.members[member]).n_layers
    return [layer_index(word, n_layers) for word in words]


def _oracle(study: Study) -> dict[str, str]:
    if study.oracle is None:
        return {}
    return {
        f"oracle/reads/{q.name}/{source}": f"the oracle reads {q.name} from activations of {source}"
        for q in study.oracle.questions
        for source in study.oracle.sources
    }
