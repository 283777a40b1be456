"""The maps that a network can be trained to give.

"raters": the new lesions, as each rater marked them: the consensus first, then the experts.
"changes": new lesions, other changes of lesions, and all lesions at each visit.

In both sets, the first map is that of the new lesions.
"""

from typing import Literal

TargetSet = Literal["raters", "changes"]

# Numbers of the maps in the set "changes".
NEW, ENLARGING, VANISHED, LESIONS01, LESIONS02 = range(5)

CHANGES = (
    "new",
    "enlarging",
    "vanished or shrunk",
    "all lesions at the first visit",
    "all lesions at the second visit",
)


def map_names(targets: int, target_set: TargetSet) -> tuple[str, ...]:
    """Return what each of the first `targets` maps of a set shows."""
    if target_set == "changes":
        return CHANGES[:targets]
    return ("consensus", *(f"expert {k}" for k in range(1, targets)))
