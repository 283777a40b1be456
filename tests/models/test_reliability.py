"""Reliability tables: which counts hold for a lesion, for which options, and invalid tables."""

import json
import math

import pytest

from msseg_jax.configuration.options import Options
from msseg_jax.models.model_description import describe_reliability
from msseg_jax.models.reliability import Reliability, read_reliability
from msseg_jax.system.errors import InputError

FIELDS = {
    "above_mm3": [3, 30, 100], "above_probability": [0.6, 0.8],
    "right": [[3, 2], [1, 9], [0, 2]], "marked": [[10, 4], [4, 9], [1, 3]],
    "threshold": 0.6, "min_lesion_mm3": 10.0, "flips": 4, "pairs": "12 pairs of two hospitals",
}  # fmt: skip


def table(**changed) -> Reliability:
    return Reliability.of(FIELDS | changed, "reliability", complete=True)


@pytest.mark.parametrize(
    ("volume_mm3", "probability", "expected"),
    [
        (20.0, 0.7, (3, 10)),
        (50.0, 0.9, (9, 9)),
        # A bin ends with its upper bound, which is part of it, and begins above the lower one.
        (30.0, 0.8, (3, 10)),
        (30.001, 0.801, (9, 9)),
        (3.001, 0.601, (3, 10)),
        (3.0, 0.7, None),
        (20.0, 0.6, None),
        # The last bins have no end.
        (100.0, 1.0, (9, 9)),
        # Fewer than 5: all lesions of this size.
        (20.0, 0.9, (5, 14)),
        (50.0, 0.7, (10, 13)),
        # Also fewer than 5 of this size.
        (100.001, 0.9, None),
        (1e9, 0.7, None),
        (20.0, math.nan, None),
        (math.nan, 0.7, None),
    ],
)
def test_the_counts_of_lesions_like_this_one(volume_mm3, probability, expected):
    assert table().like(volume_mm3, probability) == expected


def test_five_lesions_are_enough_and_four_are_not():
    five = table(marked=[[10, 5], [4, 9], [1, 3]])
    assert five.like(20.0, 0.9) == (2, 5)
    assert table().like(20.0, 0.9) == (5, 14)
    assert table(marked=[[10, 4], [4, 9], [1, 4]]).like(200.0, 0.9) == (2, 5)


def test_the_table_holds_only_for_the_options_with_which_it_was_counted():
    options = Options(threshold=0.6, min_lesion_mm3=10.0, flips=4)
    assert table().mismatch(options) is None
    # These do not decide which lesions are marked, or only in the last digits.
    assert table().mismatch(options.model_copy(update={"overlap": 2, "batch_size": 1})) is None
    other = Options(threshold=0.5, min_lesion_mm3=10.0, flips=1)
    assert table().mismatch(other) == (
        "threshold is 0.5, and was 0.6 when the lesions were counted; "
        "flips is 1, and was 4 when the lesions were counted"
    )
    larger = options.model_copy(update={"min_lesion_mm3": 12.5})
    assert table().mismatch(larger).startswith("min_lesion_mm3 is 12.5, and was 10 when")
    peaked = options.model_copy(update={"min_peak": 0.9})
    assert table().mismatch(peaked).startswith("min_peak is 0.9, and was 0 when")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"above_mm3": [3, 100, 30]}, r"reliability.above_mm3 is .* expected ascending numbers"),
        ({"above_mm3": [3, 30, 30]}, r"reliability.above_mm3 is .* expected ascending numbers"),
        ({"above_probability": [0.8, 0.6]}, "above_probability is .* expected ascending numbers"),
        ({"above_mm3": [-1, 30, 100]}, r"above_mm3\[0\] is -1; expected 0 or more"),
        ({"above_probability": [0.6, 1.0]}, r"above_probability\[1\] is 1.0; expected less than 1"),
        ({"above_mm3": []}, r"above_mm3 is ..; expected 1 or more values"),
        ({"above_mm3": [3, 30, math.nan]}, r"above_mm3\[2\] is .*; expected a finite number"),
        ({"above_mm3": [3, 30, math.inf]}, r"above_mm3\[2\] is .*; expected a finite number"),
        (
            {"right": [[3, 2], [1, 10], [0, 2]]},
            r"right\[1\]\[1\] is 10; expected at most 9, the number of marked lesions",
        ),
        (
            {"marked": [[10, 4], [4, 9]]},
            r"marked has rows of \[2, 2\] counts; expected 3 rows of 2",
        ),
        (
            {"right": [[3, 2], [1], [0, 2]]},
            r"right has rows of \[2, 1, 2\] counts; expected 3 rows",
        ),
        ({"right": [[3, 2], [1, -1], [0, 2]]}, r"right\[1\]\[1\] is -1; expected 0 or more"),
        (
            {"right": [[3, 2], [1, 1.5], [0, 2]]},
            r"right\[1\]\[1\] is 1.5; expected a valid int",
        ),
        ({"right": [[3, 2], [True, 1], [0, 2]]}, r"right\[1\]\[0\] is True; expected a valid int"),
        ({"threshold": 1}, "threshold is 1; expected 0 or more and less than 1"),
        ({"min_lesion_mm3": -1}, "min_lesion_mm3 is -1; expected 0 or more"),
        ({"flips": 3}, "flips is 3; expected 1, 2, 4 or 8"),
        ({"pairs": " "}, "reliability.pairs: the text is empty"),
        ({"pairs": "a\nb"}, "reliability.pairs: the text .* is not a single line"),
        ({"more": 1}, "reliability.more is not a field"),
    ],
)
def test_an_invalid_table_is_refused_with_the_reason(changed, message):
    with pytest.raises(InputError, match=message):
        table(**changed)


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_required(name):
    fields = {key: value for key, value in FIELDS.items() if key != name}
    with pytest.raises(InputError, match=f"reliability.{name} is missing"):
        Reliability.of(fields, "reliability", complete=True)


def test_a_file_is_read_or_refused_by_its_name(tmp_path):
    path = tmp_path / "table.json"
    with pytest.raises(InputError, match=r"table.json: no such file; expected a reliability table"):
        read_reliability(path)
    path.write_text(json.dumps(FIELDS), encoding="utf-8")
    assert read_reliability(path) == table()
    for content, message in (("{", "is damaged"), ("[]", "reliability is .*; expected")):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=f"table.json: {message}"):
            read_reliability(path)


def test_a_table_is_described_with_its_counts():
    assert describe_reliability(table()).splitlines() == [
        "17 of 31 marked lesions were right, by volume and mean probability p:",
        "volume, mm3  p 0.6 to 0.8  p above 0.8     any p",
        "10 to 30          3 of 10       2 of 4   5 of 14",
        "30 to 100          1 of 4       9 of 9  10 of 13",
        "above 100          0 of 1       2 of 3    2 of 4",
        "counted on: 12 pairs of two hospitals",
        "holds for: threshold 0.6, smallest lesion 10 mm3, 4 mirror images",
    ]
