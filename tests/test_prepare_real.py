"""Two real pairs as they left the scanner, against their published alignment and brain masks.

The published transforms are affine, with a scale of up to 1 %; ours are rigid.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from msseg_jax.data import dataset
from msseg_jax.prepare.__main__ import main
from msseg_jax.prepare.registration import compose, matrix_of, on_grid, points_of
from tests import heads

DATA = Path(__file__).parents[2] / "shared" / "data" / "open_ms"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"real scans are not there: {DATA}"),
]


@pytest.fixture(scope="module", params=["01", "03"])
def pair(request, tmp_path_factory):
    raw, published = DATA / "raw" / request.param, DATA / "longitudinal" / request.param
    folder = tmp_path_factory.mktemp("prepared") / request.param
    scans = [raw / f"study{k}_FLAIR.nii.gz" for k in (1, 2)]
    assert main(["-t1", str(scans[0]), "-t2", str(scans[1]), "-o", str(folder)]) == 0
    to_scans = [
        sitk.ReadTransform(str(raw / f"study{k}_FLAIR_to_common_space.txt")) for k in (1, 2)
    ]
    return SimpleNamespace(
        name=request.param,
        folder=folder,
        published=published,
        scans=[heads.read(path) for path in scans],
        to_scans=to_scans,  # from points of the published common space
        brain=heads.read(published / dataset.BRAIN_MASK) > 0,
        between=sitk.ReadTransform(str(folder / "transforms" / "time01_to_time02.txt")),
        middle_to_first=sitk.ReadTransform(str(folder / "transforms" / "middle_to_time01.txt")),
    )


def test_the_visits_lie_on_each_other_as_published(pair):
    points = points_of(pair.brain, 3000)
    ours = compose(pair.between, pair.to_scans[0])
    off_mm = heads.distances_mm(ours, pair.to_scans[1], points)
    assert off_mm.mean() <= 1.0
    assert off_mm.max() <= 2.0


def test_the_visits_correlate_inside_the_brain_as_well_as_published(pair):
    """The same scans, grid, mask and interpolation: the transforms alone differ."""
    ours = correlation_inside(pair, compose(pair.between, pair.to_scans[0]))
    published = correlation_inside(pair, pair.to_scans[1])
    # Between the scanners of pair 03 lies a scale of 1 % along two axes, which the published
    # transform has and a rigid one has not.
    assert ours >= published - (0.01 if pair.name == "01" else 0.015)


def correlation_inside(pair, to_second: sitk.Transform) -> float:
    """Of the scans as they are, on the published common space."""
    inside = sitk.GetArrayFromImage(pair.brain) > 0
    first, second = (
        sitk.GetArrayFromImage(sitk.Resample(scan, pair.brain, transform, sitk.sitkLinear, 0.0))
        for scan, transform in zip(pair.scans, (pair.to_scans[0], to_second), strict=True)
    )
    return float(np.corrcoef(first[inside], second[inside])[0, 1])


def brain_on_published_grid(pair) -> sitk.Image:
    """Our mask on the published common space, by way of the first scan."""
    ours = heads.read(pair.folder / dataset.BRAIN_MASK) > 0
    to_middle = compose(pair.middle_to_first.GetInverse(), pair.to_scans[0])
    return on_grid(ours, pair.brain, to_middle)


def test_the_brain_is_the_published_one(pair):
    found = heads.dice(brain_on_published_grid(pair), pair.brain)
    # The published mask of pair 03 leaves out cortex of the frontal lobes and a part of the
    # cerebellum: see the next test. No mask that holds them can reach 0.94 against it.
    assert found >= (0.94 if pair.name == "01" else 0.86)


def test_what_goes_beyond_the_published_brain_is_as_bright_as_brain(pair):
    """Bone, fluid and air are dark in a FLAIR: half as bright as the brain, and less."""
    ours, published = (
        sitk.GetArrayFromImage(mask) > 0 for mask in (brain_on_published_grid(pair), pair.brain)
    )
    flair = sitk.GetArrayFromImage(heads.read(pair.published / dataset.TIME02))
    beyond, lost = ours & ~published, published & ~ours
    if pair.name == "03":
        assert (flair[beyond] > 0.5 * np.median(flair[published])).mean() > 0.6
    assert lost.sum() < 0.05 * published.sum()


def test_no_change_inside_the_brain_is_lost(pair):
    changed = heads.read(pair.published / "change_mask.nii.gz") > 0
    lost = changed & pair.brain & (brain_on_published_grid(pair) == 0)
    assert sitk.GetArrayFromImage(lost).sum() == 0


def test_the_transform_is_rigid(pair):
    matrix, _ = matrix_of(pair.between)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-9)
