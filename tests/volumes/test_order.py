import numpy as np
import pytest

from msseg_jax.volumes.order import bright_only_ml

SHAPE = (40, 40, 40)


@pytest.fixture
def visits(rng):
    """Return two visits of one brain, of which the second has a bright region of 12^3 voxels."""
    brain = np.zeros(SHAPE, bool)
    brain[2:38, 2:38, 2:38] = True
    time01 = np.where(brain, rng.normal(100, 5, SHAPE), 0).astype(np.float32)
    time02 = np.where(brain, rng.normal(300, 15, SHAPE), 0).astype(np.float32)  # another gain
    time02[14:26, 14:26, 14:26] += 300
    return time01, time02, brain


@pytest.mark.parametrize("spacing_mm", [0.8, 1.0, 1.6])
def test_the_volume_is_that_of_the_region_that_only_one_visit_has(visits, spacing_mm):
    time01, time02, brain = visits
    expected_ml = 12**3 * spacing_mm**3 / 1000
    assert bright_only_ml(time02, time01, brain, spacing_mm) == pytest.approx(expected_ml, rel=0.1)
    assert bright_only_ml(time01, time02, brain, spacing_mm) == 0


def test_small_regions_and_the_border_of_the_brain_do_not_count(visits):
    time01, _, brain = visits
    other = time01.copy()
    other[20:23, 20:23, 20:23] += 200  # 27 mm3
    other[2:4] += 200
    assert bright_only_ml(other, time01, brain, 1.0) == 0


def test_visits_without_signal_have_none(visits):
    _, time02, brain = visits
    assert bright_only_ml(time02, np.zeros_like(time02), brain, 1.0) == 0
    assert bright_only_ml(time02, time02, np.zeros_like(brain), 1.0) == 0
