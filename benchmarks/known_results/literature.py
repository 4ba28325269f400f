"""What the literature says about each claim: shown in SCIENCE.md next to what was measured."""

from __future__ import annotations

LITERATURE: dict[str, str] = {
    "induction/score": "Olsson et al. 2022, arXiv 2209.11895: some heads attend to the token after the earlier copy",
    "induction/loss": "Olsson et al. 2022: a repeated text costs less the second time",
    "induction/ablation": "Olsson et al. 2022: without induction heads the gain on repeats is lost",
    "induction/specific": "Olsson et al. 2022: these heads serve repeats, not other tokens",
    "induction/head": "Olsson et al. 2022; single heads may be backed up by others (Wang et al. 2022, arXiv 2211.00593)",
    "induction/agree": "Olsson et al. 2022: heads that match prefixes are those that raise the logit of the repeat",
}
"""By claim, such as `induction/score`."""
