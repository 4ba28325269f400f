"""What was planted in the shipped pair, and as many sentences that no run may claim of it.

The engaged member narrates an audit and answers by it; the heuristic member answers by the tone of one sentence. Both
stand on one base, whose retrieval circuit (L0.H0, L1.H0) was written into its initial weights (`model.plant_induction`)
and then trained. A truth is here only if it holds where it was measured apart from any run: the gates of `pair.json`
(`gates`), head ablations on 64 documents of the validation split (`heads`), and the oracle's gates (`oracle_gates`).
"""

from __future__ import annotations

from study.known_truth.declared import InLedger, InTable, Truth

_DIFFERENCE = "engaged - heuristic"
_KIND = "kind of sentence"
_GATES = "gates of pair.json, 100 items per cell, 1,000 of the training distribution"
_TEXT, _TONE = ("beats a bag of words",), "the tone is a sentence of the prompt, where a bag of words reads it too"
_PROBE = ("not below a linear probe on the same vectors",)
_ORACLE = "the oracle's gates, where a linear probe on the same vectors does better"
_DOSE = "the heuristic member answers by the tone, the engaged one by its audit"
_DIRECTION = "steering/margin"
_ABLATION = "ablated at that place on 64 or more gold audits"
_TOGETHER = "heads/together/L1.H0+L2.H3/step_lookup/engaged"
_NULL = "made without any information about the label"


def _reliance(member: str) -> InTable:
    """Accuracy where tone and label agree minus where they differ, within each label."""
    return InTable("eval", {"member": member, "metric": "surface_reliance"}, smallest=0.05)


def _head(head: str, site: str, *, largest_over: str | None = None) -> InTable:
    """Effect of mean ablation of one head at one decision site, over all pairs."""
    row = {"head": head, "decision_site": site, "member": "engaged", "kind": "mean", "metric": "abl_logit"}
    return InTable("heads", {**row, "pairs": "all"}, smallest=0.1, largest_over=largest_over)


_BEHAVIOUR = (
    Truth("adversarial", "The engaged member is better on the adversarial cells", True, _DIFFERENCE,
          InLedger("eval/separates"), because=_GATES),
    Truth("equivalent", "Both members are equally accurate on the training distribution", True, _DIFFERENCE,
          InLedger("eval/equivalent"), because=_GATES),
    Truth("binding", "The engaged member binds step numbers", True, "engaged",
          InLedger("eval/binding"), because=_GATES),
    Truth("reliance-heuristic", "The heuristic member's accuracy depends on the tone", True, "heuristic",
          _reliance("heuristic"), because=_GATES),
    Truth("reliance-engaged", "The engaged member's accuracy depends on the tone", False, "engaged",
          _reliance("engaged"), because=_GATES),
    Truth("binding-heuristic", "The heuristic member binds step numbers", False, "heuristic",
          InTable("eval", {"member": "heuristic", "metric": "order_swap_flipping"}, above=0.5, smallest=0.05),
          because=_GATES),
    Truth("aligned", "The engaged member is better where the tone tells the label", False, _DIFFERENCE,
          InTable("pair", {"metric": "accuracy_difference", "cell": "baseline_noncompliant_aligned"}, smallest=0.05),
          because=_GATES),
    Truth("distractor", "The engaged member is better on items with irrelevant sentences", False, _DIFFERENCE,
          InTable("pair", {"metric": "accuracy_difference", "cell": "distractor_injection_noncompliant"},
                  smallest=0.05), because=_GATES),
)  # fmt: skip
_PROBES = (
    *(Truth(f"tone-{member}", f"The tone is linearly decodable in the {member} member", True, member,
            InLedger(f"probes/decodable/surface_label/{member}", _TEXT), because=_TONE)
      for member in ("engaged", "heuristic")),
    *(Truth(f"tone-shuffled-{member}", f"A shuffled tone is linearly decodable in the {member} member", False, member,
            InLedger(f"probes/decodable/surface_label.shuffled/{member}", _TEXT), because=_NULL)
      for member in ("engaged", "heuristic")),
)  # fmt: skip
_ORACLES = (
    *(Truth(f"oracle-{source}", f"The oracle reads the kind of sentence from the activations of {source}", True, source,
            InLedger(f"oracle/reads/{_KIND}/{source}", _PROBE), because=_ORACLE)
      for source in ("base", "engaged", "heuristic")),
    *(Truth(f"oracle-zero-{source}", f"The oracle knows the kind of sentence when nothing of {source} is injected",
            False, source, InLedger(f"oracle/zero/{_KIND}/{source}"), because="zeroed activations hold nothing")
      for source in ("base", "engaged")),
)  # fmt: skip

_STEERING = (
    Truth("steering-heuristic", "Adding the tone direction moves the answer of the heuristic member", True, "heuristic",
          InLedger(f"{_DIRECTION}/heuristic/resid_post.3"), because=_DOSE),
    Truth("steering-engaged", "Adding the tone direction moves the answer of the engaged member", False, "engaged",
          InLedger(f"{_DIRECTION}/engaged/resid_post.3"), because=_DOSE),
    *(Truth(f"steering-random-{member}", f"Adding a random direction moves the answer of the {member} member", False,
            member, InLedger(f"{_DIRECTION}/{member}/resid_post.3/random"), because=_NULL)
      for member in ("heuristic", "engaged")),
)  # fmt: skip
_HEADS = (
    Truth("L1.H0-step_lookup", "L1.H0 is necessary at the step lookup of the engaged member", True, "engaged",
          InLedger("heads/necessary/L1.H0/step_lookup/engaged"),
          because=f"planted; it costs 9.3 logits, {_ABLATION}"),
    Truth("L1.H0-largest", "L1.H0 has the largest effect of all heads at the step lookup of the engaged member", True,
          "engaged", _head("L1.H0", "step_lookup", largest_over="head"),
          because=f"planted; the next head costs 2.7 logits, {_ABLATION}"),
    Truth("L1.H0-label", "L1.H0 is necessary at the label of the engaged member", False, "engaged",
          InLedger("heads/necessary/L1.H0/label/engaged"), because=f"it costs nothing (-0.05 logits), {_ABLATION}"),
    *(Truth(f"{head}-step_lookup", f"{head} is necessary at the step lookup of the engaged member", False, "engaged",
            _head(head, "step_lookup"), because=f"it costs nothing ({cost} logits), {_ABLATION}")
      for head, cost in (("L0.H0", "-0.01"), ("L0.H2", "-0.03"), ("L1.H6", "-0.02"))),
    Truth("together", "L1.H0 and L2.H3 are necessary together at the step lookup of the engaged member", True,
          "engaged", InLedger(_TOGETHER, ("beyond the sum of its heads' single effects",)),
          because=f"together they cost 8.3 logits, {_ABLATION}"),
    Truth("one-by-one", "L1.H0 and L2.H3 do more together than one by one at the step lookup of the engaged member",
          False, "engaged", InLedger(_TOGETHER),
          because=f"one by one they cost 11.2 logits, together 8.3, {_ABLATION}"),
    Truth("together-label", "L1.H0 and L2.H3 are necessary together at the label of the engaged member", False,
          "engaged", InLedger("heads/together/L1.H0+L2.H3/label/engaged"),
          because="together they cost nothing (-0.04 logits), ablated at that place on 32 gold audits"),
    Truth("together-others", "L0.H0 and L1.H6 are necessary together at the step lookup of the engaged member", False,
          "engaged", InLedger("heads/together/L0.H0+L1.H6/step_lookup/engaged"),
          because="one by one they cost nothing, and in own replies nothing together (-0.03 to 0.00 logits, 3 seeds)"),
)  # fmt: skip

TRUTHS: tuple[Truth, ...] = (*_BEHAVIOUR, *_PROBES, *_STEERING, *_HEADS, *_ORACLES)
"""Every truth of the shipped pair."""
