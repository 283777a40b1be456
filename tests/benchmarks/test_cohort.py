"""The check of the memory in `benchmarks.cohort`."""

import pytest

from benchmarks.cohort import LEAST_SAMPLES, growth_mb


def test_the_memory_is_compared_from_the_second_fifth_to_the_last():
    start, early, middle, late = [100.0] * 20, [500.0] * 20, [900.0] * 40, [530.0] * 20
    assert growth_mb(start + early + middle + late) == pytest.approx(30)


def test_the_growth_is_not_measured_in_a_short_run():
    growing = [float(k) for k in range(LEAST_SAMPLES)]
    assert growth_mb(growing[:-1]) is None
    assert growth_mb(growing) == pytest.approx(36)  # 48 to 59 after 12 to 23
