"""Subject number: where it is decodable across a distracting noun, and what its direction does to the verb."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from benchmarks.known_results.rows import Curve, Findings, Row
from interp import ActivationCache, Example, Last, Model, extract, stats
from probes import SweepConfig, erase_check, fit_eraser, group_split, sweep
from steering import DoseItem, DosePlan, Outcomes, difference_of_means, dose_response, protocol_arms, shuffled_arms

_SUBJECTS = (
    "author boy brother cat chef clerk coach cousin dancer daughter doctor dog driver farmer father friend girl guard "
    "guest horse judge king lawyer manager mother neighbor nurse officer owner painter pilot player poet prince queen "
    "sister singer soldier student teacher"
)
_DISTRACTORS = "bed book car chair door garden house lamp river road table tower tree truck wall window"
SUBJECTS, DISTRACTORS = tuple(_SUBJECTS.split()), tuple(_DISTRACTORS.split())
PREPOSITIONS = ("near", "behind", "beside", "by")
VERBS = {"singular": (" is", " was", " has"), "plural": (" are", " were", " have")}


@dataclass(frozen=True)
class Settings:
    """Sizes and seed.

    Attributes:
        n_distractors: distracting nouns of each subject, in both numbers.
        n_dose: distractors of each held-out subject in the dose curve.
        depths: layers of the direction, as shares of all layers. 0.5 was fixed before anything was measured; 0.75 was
            added after the dose curve at 0.5 on SmolLM2 was open.
        n_random, n_shuffled: control directions.
        n_perm: label permutations behind the null of a probe.
    """

    n_distractors: int = 4
    n_dose: int = 1
    depths: tuple[float, ...] = (0.5, 0.75)
    n_random: int = 39
    n_shuffled: int = 39
    n_perm: int = 199
    seed: int = 0


def examples(settings: Settings) -> list[Example]:
    """Beginnings such as "The keys near the cabinet": every subject in both numbers with distractors in both."""
    rng = np.random.default_rng(settings.seed)
    out = []
    for subject in SUBJECTS:
        nouns = rng.choice(DISTRACTORS, settings.n_distractors, replace=False)
        for place, noun in enumerate(nouns):
            preposition = str(rng.choice(PREPOSITIONS))
            for number, other in itertools.product(VERBS, VERBS):
                text = f"The {_form(subject, number)} {preposition} the {_form(str(noun), other)}"
                out.append(
                    Example(f"{subject}-{place}-{number}-{other}", text=text, label=number, groups={"subject": subject},
                            metadata={"distractor": other, "place": place})
                )  # fmt: skip
    return out


def _form(noun: str, number: str) -> str:
    return noun if number == "singular" else f"{noun}s"


def run(model: Model, settings: Settings) -> Findings:
    items = examples(settings)
    with tempfile.TemporaryDirectory() as folder:
        cache = extract(model, items, sites="resid_post.*", positions=[Last()], out=folder, progress=False)
        probed, curve = _probe(cache, items, settings)
        for depth in settings.depths:
            site = f"resid_post.{int(depth * model.n_layers)}"
            probed += [*_erase(cache, items, site, settings), *_steer(cache, items, model, site, settings)]
    return Findings(probed, [curve])


def _probe(cache: ActivationCache, items: list[Example], settings: Settings) -> tuple[list[Row], Curve]:
    """AUROC of the subject's number by layer; its null repeats everything on permuted labels."""
    config = SweepConfig(n_perm=settings.n_perm, n_seeds=1, n_control=0, seed=settings.seed)
    result = sweep(cache, target="label", positive="plural", groups="subject", kinds=["ridge"], config=config)
    table = result.table[(result.table["metric"] == "auroc") & (result.table["role"] == "layer")]
    layers = table[table["split"] == "oof"].sort_values("layer")
    tested = table[table["split"] == "test"].iloc[0]
    limit = float(layers["null_max95"].iloc[0])
    row = Row(
        claim="number/probe", what="AUROC of a ridge probe of the subject's number at the distracting noun, held-out "
        "subjects, layer chosen without them", value=float(tested["value"]), lo=float(tested["lo"]),
        hi=float(tested["hi"]), n=int(tested["n"]), n_groups=int(tested["n_groups"]), unit="",
        null="permuted labels, chance (limit: 95 % of the maximum over layers)", null_value=0.5, limit=limit,
        expected="above",
    )  # fmt: skip
    curve = Curve("AUROC of the subject's number", "layer", layers["layer"].astype(int).tolist(),
                  layers["value"].tolist(), "limit under permuted labels", layers["null_max95"].tolist())  # fmt: skip
    return [row], curve


def _numbers(items: list[Example], *, of: str) -> np.ndarray:
    """1 where the subject (or the distractor) is plural."""
    words = [item.label if of == "subject" else item.metadata["distractor"] for item in items]
    return np.array([int(word == "plural") for word in words])


def _erase(cache: ActivationCache, items: list[Example], site: str, settings: Settings) -> list[Row]:
    """LEACE of the subject's number, and of the distractor's number instead."""
    feats = torch.as_tensor(np.asarray(cache.read(site, "last"))).double()
    subject, other = _numbers(items, of="subject"), _numbers(items, of="distractor")
    split = group_split(subject, groups=np.array([item.groups["subject"] for item in items]), seed=settings.seed)
    erased = erase_check(feats, subject, split)
    instead = erase_check(fit_eraser(feats, other)(feats), subject, split)
    after, kept = erased.held_out_after, instead.held_out_before
    return [
        Row(claim="number/leace-train", what=f"AUROC of a refitted probe on training subjects after LEACE at {site}",
            value=erased.train_after, lo=erased.train_after, hi=erased.train_after, n=len(items),
            n_groups=len(SUBJECTS), unit="", null="no information", null_value=0.5, expected="near", margin=0.05),
        Row(claim="number/leace", what=f"the same on held-out subjects (before: {erased.held_out_before.value:.3f})",
            value=after.value, lo=after.lo, hi=after.hi, n=after.n, n_groups=after.n_groups, unit="",
            null="no information", null_value=0.5, expected="near", margin=0.1),
        Row(claim="number/leace-other", what="AUROC on held-out subjects after LEACE of the distractor's number",
            value=kept.value, lo=kept.lo, hi=kept.hi, n=kept.n, n_groups=kept.n_groups, unit="",
            null="after LEACE of the subject's number, upper limit", null_value=after.hi, expected="above"),
    ]  # fmt: skip


def _steer(cache: ActivationCache, items: list[Example], model: Model, site: str, settings: Settings) -> list[Row]:
    """The difference of means of one half of the subjects, on the other half."""
    is_fit = np.array([SUBJECTS.index(item.groups["subject"]) % 2 == 0 for item in items])
    how: dict[str, Any] = dict(toward="plural", away_from="singular", site=site, groups="subject", fit_on=is_fit)
    direction = difference_of_means(cache, **how)
    others = [str(item.metadata["distractor"]) for item in items]
    distractor = difference_of_means(cache, target=others, check_sign=False, **how)
    feats = torch.as_tensor(np.asarray(cache.read(site, "last"))).float()
    shuffled = shuffled_arms(direction.site, feats[torch.from_numpy(is_fit)], _numbers(items, of="subject")[is_fit] > 0,
                             groups=[item.groups["subject"] for item in np.array(items, dtype=object)[is_fit]],
                             n=settings.n_shuffled, seed=settings.seed)  # fmt: skip
    arms = protocol_arms(direction, nuisances=[distractor], shuffled=shuffled, n_random=settings.n_random,
                         n_complement=0, seed=settings.seed)  # fmt: skip
    lengths, norms = ({direction.site: direction.scale(unit)} for unit in ("delta", "resid"))
    plan = DosePlan(tuple(arms), (-1.0, 0.0, 1.0), "delta", lengths, norms, Last())
    dosed = [_dose_item(item, model) for item, fit in zip(items, is_fit, strict=True)
             if not fit and int(str(item.metadata["place"])) < settings.n_dose]  # fmt: skip
    outcomes = Outcomes.of(None, toward="plural", away="singular")
    slopes = dose_response(model, dosed, plan, outcomes=outcomes).slopes()
    slopes = slopes[slopes["metric"] == "margin"]
    own, nuisance = (slopes[slopes["arm"] == role].iloc[0] for role in ("direction", "nuisance"))
    rows = [_projection_row(feats, items, ~is_fit, direction.unit, distractor.unit, site)]
    what = f"slope of log p(plural verb) - log p(singular verb) along the difference of means at {site}"
    for claim, null, value, limit in (
        ("number/dose", "random directions of equal length", "random", None),
        ("number/dose-shuffled", "differences of means of permuted labels", "shuffled", None),
        ("number/dose-other", "the direction of the distractor's number", "nuisance", float(nuisance["hi"])),
    ):
        drawn = slopes[slopes["arm"] == value]["value"].to_numpy()
        rows.append(
            Row(claim=claim, what=what, value=float(own["value"]), lo=float(own["lo"]), hi=float(own["hi"]),
                n=int(own["n"]), n_groups=int(own["n_groups"]), unit="nats per gap of the classes",
                null=f"{null}, mean (limit: {'upper end of its interval' if limit else '97.5 %'})",
                null_value=float(drawn.mean()), limit=limit or float(np.quantile(drawn, 0.975)), expected="above")
        )  # fmt: skip
    return rows


def _dose_item(item: Example, model: Model) -> DoseItem:
    ids = tuple(tuple(_first(model, verb) for verb in verbs) for verbs in VERBS.values())
    prompt = tuple(model.tokenizer(item.text)["input_ids"])
    return DoseItem(item, prompt, tuple(VERBS), ids, item.groups["subject"])


def _first(model: Model, word: str) -> int:
    return int(model.tokenizer(word, add_special_tokens=False)["input_ids"][0])


def _projection_row(
    feats: torch.Tensor, items: list[Example], is_held_out: Bool[np.ndarray, "example"], unit: torch.Tensor,
    other: torch.Tensor, site: str,
) -> Row:  # fmt: skip
    labels = _numbers(items, of="subject")[is_held_out]
    groups = [item.groups["subject"] for item, held in zip(items, is_held_out, strict=True) if held]
    held = feats[torch.from_numpy(is_held_out)]
    own, null = (stats.auroc((held @ one.float()).numpy(), labels, groups=groups) for one in (unit, other))
    return Row(
        claim="number/means", what=f"AUROC of the projection on the difference of means at {site}, held-out subjects",
        value=own.value, lo=own.lo, hi=own.hi, n=len(labels), n_groups=len(set(groups)), unit="",
        null="projection on the direction of the distractor's number (limit: upper end of its interval)",
        null_value=null.value, limit=null.hi, expected="above",
    )  # fmt: skip
