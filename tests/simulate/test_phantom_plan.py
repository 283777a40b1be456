"""Plans of phantoms: the number and the volume of the new lesions, and the scanner."""

import itertools

import numpy as np
import pytest

from msseg_jax.simulate.phantom import plan_patient
from msseg_jax.simulate.phantom.plan import DECK, SCANNERS, STREAMS, positives_among


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_forty_patients_have_the_statistics_of_the_challenge(seed):
    plans = [plan_patient(seed, index, 40) for index in range(40)]
    counts = np.array([len(plan.new_lesions_mm3) for plan in plans])
    voxels = np.array([plan.new_lesion_voxels for plan in plans])
    positive = counts > 0
    assert positive.sum() == 29
    assert np.median(counts[positive]) == 3
    assert (counts[positive].min(), counts.max()) == (1, 32)
    assert (voxels[positive].min(), voxels.max()) == (20, 20000)
    assert not voxels[~positive].any()


@pytest.mark.parametrize(
    ("patients", "positives"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (10, 7), (20, 15), (40, 29)]
)
def test_29_of_40_patients_are_positive_up_to_rounding(patients, positives):
    assert positives_among(patients) == positives
    plans = [plan_patient(5, index, patients) for index in range(patients)]
    assert sum(bool(plan.new_lesions_mm3) for plan in plans) == positives


def test_positives_and_negatives_are_spread_evenly():
    flags = [bool(plan_patient(0, index).new_lesions_mm3) for index in range(40)]
    runs = [len(run) for run in "".join("+" if flag else "-" for flag in flags).split("-")]
    assert max(runs) <= 3
    assert not any(a is False and b is False for a, b in itertools.pairwise(flags))


def test_eight_patients_cover_small_and_large_numbers_of_lesions():
    for seed in range(10):
        counts = [len(plan_patient(seed, index).new_lesions_mm3) for index in range(8)]
        assert 0 < min(filter(None, counts)) <= 2
        assert max(counts) >= 6


def test_a_plan_depends_only_on_seed_and_index():
    assert plan_patient(3, 7, 8) == plan_patient(3, 7, 40) == plan_patient(3, 7)
    assert plan_patient(3, 7) != plan_patient(4, 7)


def test_every_random_stream_depends_on_seed_and_index():
    draws = [
        plan_patient(seed, index).rng(stream).random()
        for seed in (0, 1)
        for index in (0, 1)
        for stream in STREAMS
    ]
    assert len(set(draws)) == 4 * len(STREAMS)
    assert plan_patient(0, 0).rng("anatomy").random() == draws[STREAMS.index("anatomy")]


def test_planned_lesions_match_a_card_of_the_deck_and_are_at_least_3_mm_wide():
    for index in range(40):
        plan = plan_patient(2, index)
        if plan.new_lesions_mm3:
            assert (len(plan.new_lesions_mm3), plan.new_lesion_voxels) in DECK
            assert min(plan.new_lesions_mm3) > 13.99  # a ball of 3 mm diameter has 14.1 mm3


def test_voxel_sizes_range_from_half_a_millimetre_to_1_2_mm_isotropic():
    sizes = {plan_patient(0, index).spacing_mm for index in range(40)}
    assert sizes == {spacing for spacing, _, _ in SCANNERS}
    volumes = [np.prod(size) for size in sizes]
    assert np.isclose(min(volumes), 0.5 * 0.75 * 0.75)
    assert np.isclose(max(volumes), 1.2**3)


def test_an_index_outside_the_data_set_is_refused():
    with pytest.raises(ValueError, match="index=8, patients=8"):
        plan_patient(0, 8, 8)
