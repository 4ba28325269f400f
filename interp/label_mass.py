"""The total probability of a task's labels at the position where they are scored, and what to do if it is low."""

from __future__ import annotations

LOW_MASS = 0.5
"""Below this a table's rows have a note: most of the probability is on text other than the labels."""

MIN_MASS = 0.1
"""Below this a report makes no claim about answers (`min_label_mass` of a study): nine of ten sampled replies would
begin with something else, so that the labels are compared in a tail that hardly predicts the model's answer."""


def mass_note(mass: float | None) -> str:
    """The note for numbers from labels with a total probability of `mass`; "" if none is needed.

    Args:
        mass: mean over items of the sum of p(label) over the whole vocabulary; None or NaN where it was not measured.
    """
    if mass is None or not mass < LOW_MASS:
        return ""
    return (
        f"the labels hold {mass:.2f} of the probability at the slot (less than {LOW_MASS:g}): the model answers "
        "elsewhere. Measure where it answers: slot 'own', or a forced text before the label such as 'Answer:'"
    )
