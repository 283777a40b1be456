"""The reliability table of a model: how many of the lesions that it marked were right.

The lesions are counted in pairs with known new lesions that were never used for training, by their
volume and mean probability. `python -m benchmarks.reliability` counts them, and `msseg export
--reliability` stores the table in a model file.
"""

from bisect import bisect_left
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from msseg_jax.configuration.section import Section, setting
from msseg_jax.configuration.sections import PredictSettings
from msseg_jax.models.texts import FilledLine
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json

LEAST_COUNT = 5  # fewer lesions say nothing about others like them
COUNTED_WITH = ("threshold", "min_lesion_mm3", "min_peak", "flips")  # a table holds for these only

Volume = Annotated[float, Field(ge=0)]
LowerProbability = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Counts = tuple[tuple[Count, ...], ...]


class Reliability(Section):
    """Counts of the marked lesions that were right, by volume and probability.

    A bin begins above its lower bound and ends with the next one, which is part of it. The last bin
    has no end. The rows of the counts are bins of the volume, and the columns are bins of the mean
    probability.
    """

    above_mm3: tuple[Volume, ...] = setting(
        ..., "lower bounds of the bins of the volume, mm3", min_length=1, max_length=100
    )
    above_probability: tuple[LowerProbability, ...] = setting(
        ..., "lower bounds of the bins of the mean probability", min_length=1, max_length=100
    )
    right: Counts = setting(..., "marked lesions that were right, in each bin")
    marked: Counts = setting(..., "all marked lesions, in each bin")
    threshold: float = setting(..., "threshold with which they were marked", ge=0, lt=1)
    min_lesion_mm3: float = setting(..., "smallest lesion that was marked, mm3", ge=0)
    min_peak: float = setting(
        0.0, "smallest peak probability of a marked lesion", ge=0, lt=1, later=True
    )
    flips: Literal[1, 2, 4, 8] = setting(..., "mirror images that were averaged")
    pairs: FilledLine = setting(..., "the pairs in which the lesions were counted, in words")

    @model_validator(mode="after")
    def _check_bins(self) -> Self:
        problems = []
        for name in ("above_mm3", "above_probability"):
            bounds = getattr(self, name)
            if any(a >= b for a, b in pairwise(bounds)):
                problems.append(f"{name} is {bounds}; expected ascending numbers")
        rows, columns = len(self.above_mm3), len(self.above_probability)
        sizes = {}
        for name in ("right", "marked"):
            counts = getattr(self, name)
            sizes[name] = [len(row) for row in counts]
            if sizes[name] != [columns] * rows:
                problems.append(
                    f"{name} has rows of {sizes[name]} counts; expected {rows} rows of {columns}, "
                    "one row for each volume and one count for each probability"
                )
        if not problems:
            problems = [
                f"right[{i}][{j}] is {self.right[i][j]}; expected at most {self.marked[i][j]}, the "
                "number of marked lesions"
                for i in range(rows)
                for j in range(columns)
                if self.right[i][j] > self.marked[i][j]
            ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def like(self, volume_mm3: float, probability: float) -> tuple[int, int] | None:
        """Return how many marked lesions like this one were right, and how many there were.

        These are the lesions in the same bins of volume and mean probability. If there are fewer
        than LEAST_COUNT, they are all lesions in the same bin of the volume, with any probability.
        If these are too few as well, or the table does not reach down to this lesion, the result is
        None.
        """
        row = bisect_left(self.above_mm3, volume_mm3) - 1
        column = bisect_left(self.above_probability, probability) - 1
        if row < 0 or column < 0:
            return None
        right, marked = self.right[row][column], self.marked[row][column]
        if marked < LEAST_COUNT:
            right, marked = sum(self.right[row]), sum(self.marked[row])
        return None if marked < LEAST_COUNT else (right, marked)

    def mismatch(self, options: PredictSettings) -> str | None:
        """Return which options differ from those of the table, in words; None if none does."""
        differences = [
            f"{name} is {given:g}, and was {own:g} when the lesions were counted"
            for name in COUNTED_WITH
            if (given := getattr(options, name)) != (own := getattr(self, name))
        ]
        return "; ".join(differences) or None


def read_reliability(path: Path) -> Reliability:
    """Read a table from a JSON file, as `python -m benchmarks.reliability` writes it.

    Raises:
      InputError: the file cannot be read, or does not contain a valid table.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; expected a reliability table, as `python -m "
            "benchmarks.reliability` writes it. Check the path."
        )
    return Reliability.of(read_json(path), f"{path}: reliability", complete=True)
