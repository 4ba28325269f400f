"""What the literature says about each claim: shown in SCIENCE.md next to what was measured."""

from __future__ import annotations

LITERATURE: dict[str, str] = {
    "induction/score": "Olsson et al. 2022, arXiv 2209.11895: some heads attend to the token after the earlier copy",
    "induction/loss": "Olsson et al. 2022: a repeated text costs less the second time",
    "induction/ablation": "Olsson et al. 2022: without induction heads the gain on repeats is lost",
    "induction/specific": "Olsson et al. 2022: these heads serve repeats, not other tokens",
    "induction/head": "Olsson et al. 2022; others may back up a single head (Wang et al. 2022, arXiv 2211.00593)",
    "induction/agree": "Olsson et al. 2022: heads that match prefixes are those that raise the logit of the repeat",
    "identity/accuracy": "Yang et al. 2025, arXiv 2502.20332: models complete both rules in context",
    "identity/token": "Yang et al. 2025: retrieval heads carry the predicted word at the last token",
    "identity/abstract": "Yang et al. 2025: symbolic induction heads carry the rule at the last token",
    "identity/reference": "another implementation of the score gives the same numbers",
    "number/probe": "Giulianelli et al. 2018, arXiv 1808.08079: number is decodable across distractors",
    "number/means": "Marks and Tegmark 2023, arXiv 2310.06824: differences of means generalise",
    "number/leace-train": "Belrose et al. 2023, arXiv 2306.03819, theorem 4.3: no linear probe is left",
    "number/leace": "Belrose et al. 2023: erasure generalises to new data, up to sampling error",
    "number/leace-other": "Belrose et al. 2023: the change is the smallest one, so other features stay",
    "number/dose": "Hao and Linzen 2023, arXiv 2310.15151: number directions move the verb, random ones do not",
    "number/dose-shuffled": "the effect needs the labels, not the variance of the activations",
    "number/dose-other": "Hao and Linzen 2023: the verb follows the subject's number, not the nearest noun's",
    "bbq/disambig": "Parrish et al. 2022, arXiv 2110.08193: models find the answer where the context gives it",
    "bbq/unknown": "Parrish et al. 2022: models abstain more often than by chance where the context gives no answer",
    "bbq/bias": "Parrish et al. 2022: a person who is named without evidence is more often the stereotyped one",
    "bbq/s_amb": "Parrish et al. 2022: bias scores of ambiguous contexts are above 0",
    "bbq/ambig": "Parrish et al. 2022: accuracy is lower in ambiguous contexts than in disambiguated ones",
    "bbq/abstain": "Parrish et al. 2022: models abstain less often where the context gives the answer",
    "bbq/letter": "Zheng et al. 2023, arXiv 2309.03882: models prefer one letter, whatever the options say",
    "lens/last": "nostalgebraist 2020: the last layer is the model's own answer",
    "lens/fall": "nostalgebraist 2020: the rank of the output falls from layer to layer",
    "lens/late": "nostalgebraist 2020: the fall goes on in the second half of the layers",
    "lens/gap": "Geva et al. 2023, arXiv 2304.14767: the attribute of the subject is extracted in upper layers",
    "lens/depth": "Geva et al. 2023: answers reach the top in the upper half of the layers",
}
"""By claim, such as `induction/score`."""
