"""Test what is said about two visits whose headers contradict each other."""

from datetime import date, time
from pathlib import Path

import pytest

from msseg_jax.prepare.visit_facts import VisitFacts, compare_visits, describe_dates
from msseg_jax.system.errors import InputError

PATHS = (Path("one"), Path("two"))
EARLY, LATE = VisitFacts(date(2019, 3, 4)), VisitFacts(date(2020, 1, 2))


def compare(first, second, allow_reversed=False):
    return compare_visits(PATHS, (first, second), allow_reversed)


def person(**values):
    return VisitFacts(patient=values)


def test_visits_in_order_and_visits_without_dates_get_no_warning():
    assert compare(EARLY, LATE) == []
    assert compare(EARLY, VisitFacts()) == compare(VisitFacts(), EARLY) == []


def test_reversed_visits_are_an_error_with_both_dates_and_both_ways_out():
    with pytest.raises(InputError) as error:
        compare(LATE, EARLY)
    assert str(error.value) == (
        "one and two: the first visit was acquired on 2020-01-02, after the second, of 2019-03-04; "
        "expected the earlier visit first. Swap -t1 and -t2 (with --dataset, the names time01 and "
        "time02). If the dates in the headers are wrong, add --allow_reversed."
    )


def test_reversed_visits_get_a_warning_if_they_are_allowed():
    (warning,) = compare(LATE, EARLY, allow_reversed=True)
    assert "reverse order" in warning
    assert "2020-01-02, after the second, of 2019-03-04" in warning


def test_one_date_for_both_visits_gets_a_warning_with_the_times_if_they_are_reversed():
    day = date(2019, 3, 4)
    (warning,) = compare(VisitFacts(day), VisitFacts(day, time(9)))
    assert "same date, 2019-03-04" in warning
    assert "09:00:00" not in warning
    assert compare(VisitFacts(day, time(8)), VisitFacts(day, time(9))) == [warning]
    (warning,) = compare(VisitFacts(day, time(9, 30)), VisitFacts(day, time(9)))
    assert "the first is the later one (09:30:00 and 09:00:00)" in warning


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"PatientBirthDate": "19800101"}, {"PatientBirthDate": "19800102"}, "BirthDate differs."),
        ({"PatientSex": "F"}, {"PatientSex": "M"}, "patient: PatientSex differs."),
        (
            {"PatientSex": "F", "PatientBirthDate": "1", "PatientID": "x"},
            {"PatientSex": "M", "PatientBirthDate": "2", "PatientID": "y"},
            "PatientBirthDate and PatientSex and PatientID differ.",
        ),
        ({"PatientID": "12"}, {"PatientID": "13"}, "PatientID differs between the DICOM headers"),
    ],
)
def test_contradictions_about_the_patient_name_the_fields_but_no_values(first, second, said):
    (warning,) = compare(person(**first), person(**second))
    assert said in warning
    assert not any(value in warning.replace(said, "") for value in ("1980", "12", "13"))
    assert ("two persons" in warning) == (set(first) != {"PatientID"})


def test_fields_that_one_header_lacks_are_not_compared():
    assert compare(person(PatientSex="F", PatientID="1"), person(PatientSex="", PatientID="")) == []
    assert compare(person(PatientSex="F", PatientID="1"), person()) == []


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (date(2019, 3, 4), date(2020, 1, 2), "2019-03-04 and 2020-01-02, 304 days apart"),
        (date(2020, 2, 28), date(2020, 2, 29), "2020-02-28 and 2020-02-29, 1 day apart"),
        (date(2020, 1, 2), date(2020, 1, 2), "2020-01-02 and 2020-01-02, the same day"),
        (
            date(2020, 1, 2), date(2019, 3, 4),
            "2020-01-02 and 2019-03-04, 304 days apart, in reverse order",
        ),
        (None, date(2019, 3, 4), "unknown and 2019-03-04"),
        (None, None, None),
    ],
)  # fmt: skip
def test_the_dates_and_the_interval_are_given_in_words(first, second, said):
    assert describe_dates(first, second) == said
