"""How much of a model's probability its labels hold where it is read, and what to do where that is little."""

from __future__ import annotations

LOW_MASS = 0.5
"""Below this a table's rows carry a note: most of the probability lies on text that is none of the labels."""

MIN_MASS = 0.1
"""Below this a report claims nothing of answers (`min_label_mass` of a study): nine of ten sampled replies would begin
with something else, so that the labels are compared in a tail that says little of what the model answers."""


def mass_note(mass: float | None) -> str:
    """What must be said of numbers read where the labels hold `mass` of the probability; "" where nothing must.

    Args:
        mass: mean over items of the sum of p(label) over the whole vocabulary; None or NaN where it was not measured.
    """
    if mass is None or not mass < LOW_MASS:
        return ""
    return (
        f"the labels hold {mass:.2f} of the probability where they are read (less than {LOW_MASS:g}): the model "
        f"answers elsewhere. Read it where it answers: slot 'own', or a forced text before the label such as 'Answer:'"
    )
