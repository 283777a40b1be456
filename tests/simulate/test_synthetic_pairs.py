"""One synthetic pair: the differences between its visits, and the labels of its new lesions."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from msseg_jax.simulate.synthetic import pair as pairs
from msseg_jax.simulate.synthetic.anatomy import Anatomy
from msseg_jax.simulate.synthetic.fields import smooth_field
from msseg_jax.simulate.synthetic.pair import make_pair
from msseg_jax.simulate.synthetic.plan import Kind, draw_lesion
from msseg_jax.simulate.synthetic.sessions import draw_sessions
from msseg_jax.simulate.synthetic.visit import SimulatedVisit, SourceGrid, slice_profile
from msseg_jax.volumes.layout import BRAIN_MASK, CONSENSUS, TIME01, TIME02
from tests.support.brains import (
    MNI_SHIFT_MM,
    both,
    make_bank,
    make_lesion,
    make_shape,
    make_source,
    quiet,
)


def scanned(source, session, grid=None):
    grid = grid or SourceGrid(source.brain.shape, np.eye(4))
    return SimulatedVisit(source, Anatomy(source), session, grid).scan(source.images[0])


@pytest.mark.parametrize("scale_mm", [12.0, 30.0, 80.0])
def test_a_field_has_its_length_scale_and_standard_deviation_one(scale_mm):
    # Many fields are needed, because one field has few independent values.
    fields = [
        smooth_field(np.random.default_rng(k), (40, 30, 20), np.array([2.0, 2, 3]), scale_mm)
        for k in range(60)
    ]
    values = np.stack(fields)
    assert values.shape == (60, 40, 30, 20)
    assert abs(values.mean()) < 0.2
    assert values.std() == pytest.approx(1, abs=0.2)
    step = np.abs(np.diff(values, axis=1)).max()
    assert step < 2 * 7 / scale_mm, "the field must not jump"


def test_a_session_without_changes_returns_the_image_of_the_head():
    source = make_source((1.5, 2.0, 3.0))
    np.testing.assert_allclose(
        scanned(source, quiet(source.spacing_mm)), source.images[0], atol=1e-6
    )


def test_a_head_turned_in_the_scanner_is_resampled_to_the_shared_grid():
    source = make_source()
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(0.07), -np.sin(0.07), 0], [np.sin(0.07), np.cos(0.07), 0], [0, 0, 1]]
    pose[:3, 3] = (0.7, -0.4, 0.9)
    seen = scanned(source, quiet(source.spacing_mm, pose=pose))
    inside = ndimage.binary_erosion(source.brain, iterations=2)
    assert np.abs(seen - source.images[0])[inside].mean() < 0.01
    np.testing.assert_allclose(
        ndimage.center_of_mass(seen), ndimage.center_of_mass(source.images[0]), atol=0.02
    )


def test_a_registration_error_moves_the_visit():
    source = make_source((2.0, 2.0, 3.0))
    error = np.eye(4)
    error[:3, 3] = (0.8, 0.0, -0.6)
    moved = scanned(source, quiet(source.spacing_mm, error=error))
    shift = np.subtract(ndimage.center_of_mass(source.images[0]), ndimage.center_of_mass(moved)) * (
        2,
        2,
        3,
    )
    np.testing.assert_allclose(shift, (0.8, 0.0, -0.6), atol=0.05)


def test_intensities_follow_gamma_bias_and_noise():
    source = make_source()
    tissue = ndimage.binary_erosion(source.images[0] > 0.9, iterations=2)
    source.images[0][tissue] = 0.8
    assert scanned(source, quiet((2, 2, 2), gamma=2.0))[tissue].mean() == pytest.approx(0.64)
    noisy = scanned(source, quiet((2, 2, 2), noise=0.03))[tissue]
    assert noisy.std() == pytest.approx(0.03, rel=0.05)
    biased = np.log(scanned(source, quiet((2, 2, 2), bias=0.1))[tissue] / 0.8)
    assert 0.02 < np.ptp(biased) < 0.5


def test_another_protocol_changes_each_tissue_but_not_the_background():
    source = make_source()
    tissue = ndimage.binary_erosion(source.images[0] > 0.9, iterations=2)
    fluid = ndimage.binary_erosion((source.images[0] < 0.3) & source.brain)
    outside = ndimage.binary_erosion(~source.brain, iterations=2)
    tones = (-0.06, 0.0, 0.02, 0.08, 0.0, 0.0)  # fluid, in between, white matter, grey matter, ...
    seen = scanned(source, quiet((2, 2, 2), tones=tones))
    np.testing.assert_allclose(seen[tissue], 1.05, atol=1e-5)  # between white and grey matter
    np.testing.assert_allclose(seen[fluid], 0.2 - 0.04, atol=1e-5)  # between background and fluid
    np.testing.assert_array_equal(seen[outside], 0)


def test_flow_brightens_fluid_but_not_tissue():
    source = make_source()
    fluid = (source.images[0] < 0.3) & source.brain
    tissue = ndimage.binary_erosion(source.images[0] > 0.9, iterations=2)
    seen = [scanned(source, quiet((2, 2, 2), flow=0.5, seed=k)) for k in range(8)]
    assert max(image[fluid].max() for image in seen) > 0.35
    for image in seen:
        np.testing.assert_allclose(image[tissue], 1.0, atol=1e-6)


def test_thick_slices_average_the_image():
    source = make_source((1.0, 1.0, 1.0))
    image = np.zeros_like(source.images[0])
    image[54, 54, 54] = 1
    session = quiet((1.0, 1.0, 4.0))
    profile = slice_profile(image, source.spacing_mm, session)[54, 54]
    assert profile.sum() == pytest.approx(1, abs=1e-3)
    width = np.sqrt((profile * (np.arange(len(profile)) - 54) ** 2).sum())
    assert width == pytest.approx(np.sqrt(4**2 - 1) / 2.355, rel=0.1)
    assert slice_profile(image, source.spacing_mm, quiet((1.0, 1.0, 1.0))) is image


def test_a_grid_over_the_same_field_of_view_keeps_its_centre():
    grid = SourceGrid.over((40, 40, 41), np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 4.0]))
    assert grid.shape == (40, 20, 10)
    ends = [
        grid.to_source[:3, :3] @ np.array(v) + grid.to_source[:3, 3]
        for v in ((0, 0, 0), (39, 19, 9))
    ]
    np.testing.assert_allclose(np.mean(ends, axis=0), (19.5, 19.5, 20))


def test_sessions_never_have_smaller_voxels_than_the_scan(rng):
    for spacing_mm in ((1.0, 1.0, 1.0), (0.7, 0.7, 3.0)):
        for _ in range(50):
            for session in draw_sessions(np.array(spacing_mm), False, rng).visits:
                assert (session.spacing_mm >= np.array(spacing_mm) - 1e-9).all()
                assert np.linalg.norm(session.error[:3, 3]) <= 1.01, "the error is at most 1 mm"


# ------------------------------------------------------------------------------------- pairs


@pytest.fixture(scope="module")
def source():
    return make_source((2.0, 2.0, 3.0), noise=0.03)


def only(monkeypatch, *kinds):
    """Draw exactly one lesion of each of these kinds, and scan both visits in the same way."""
    monkeypatch.setattr(
        pairs,
        "draw_lesions",
        lambda bank, _, rng: [draw_lesion(kind, bank, rng) for kind in kinds],
    )
    monkeypatch.setattr(
        pairs, "draw_sessions", lambda spacing_mm, *_: both(quiet(spacing_mm), quiet(spacing_mm))
    )


def test_a_pair_depends_on_seed_scan_and_number_only(source):
    one, same, other = (make_pair(source, make_bank(), 5, k) for k in (3, 3, 4))
    for name, volume in one.volumes.items():
        np.testing.assert_array_equal(volume, same.volumes[name])
    assert (one.volumes[TIME01] != other.volumes[TIME01]).any()
    renamed = make_pair(replace(source, name="other"), make_bank(), 5, 3)
    assert (one.volumes[TIME01].shape != renamed.volumes[TIME01].shape) or (
        one.volumes[TIME01] != renamed.volumes[TIME01]
    ).any()


def test_a_new_lesion_is_labelled_where_only_the_second_visit_is_bright(source, monkeypatch):
    only(monkeypatch, Kind.NEW, Kind.NEW, Kind.NEW)
    for number in range(4):
        made = make_pair(source, make_bank(), 0, number)
        label = made.volumes[CONSENSUS] > 0
        first, second = (made.volumes[name].astype(float) / 300 for name in (TIME01, TIME02))
        assert made.record["painted"]["new"] == 3
        assert 1 <= made.record["new_lesions"] <= 3
        assert (label <= (made.volumes[BRAIN_MASK] > 0)).all()
        assert (second - first)[label].mean() > 0.1
        bright = second - first > 0.15
        # No other place is bright.
        assert (ndimage.binary_dilation(label, iterations=1) >= bright).all()


def test_a_label_matches_the_lesion_in_the_second_visit(source, monkeypatch):
    """The label must follow the registration error and the distortion of that visit."""
    only(monkeypatch, Kind.NEW)
    error = np.eye(4)
    error[:3, 3] = (3.0, -2.0, 4.0)
    still, moved = (
        quiet(source.spacing_mm),
        quiet(source.spacing_mm, error=error, distortion_mm=1.5, seed=4),
    )
    places = []
    for second in (still, moved):
        monkeypatch.setattr(pairs, "draw_sessions", lambda *_, second=second: both(still, second))
        made = make_pair(source, make_bank(), 0, 1)
        label = made.volumes[CONSENSUS] > 0
        bright = (made.volumes[TIME02] > 1.25 * 300) & ndimage.binary_dilation(label, iterations=3)
        places.append(
            [ndimage.center_of_mass(mask) * source.spacing_mm for mask in (label, bright)]
        )
        np.testing.assert_allclose(*places[-1], atol=1.2)
    assert np.linalg.norm(places[1][0] - places[0][0]) > 3, "the label moves with the visit"


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.NEW])
def test_other_lesions_are_painted_but_not_labelled(source, monkeypatch, kind):
    only(monkeypatch, kind, kind)
    made = make_pair(source, make_bank(), 0, 1)
    assert made.record["painted"][kind.value] == 2
    assert not made.volumes[CONSENSUS].any()
    first, second = (made.volumes[name].astype(float) / 300 for name in (TIME01, TIME02))
    difference, brightest = second - first, max(first.max(), second.max())
    assert brightest > 1.15
    if kind is Kind.VANISHES:
        assert difference.min() < -0.1
    elif kind is Kind.PERSISTS:
        assert np.abs(difference).max() < 0.12
    else:
        assert np.abs(difference).max() > 0.03


@pytest.mark.parametrize("slices_mm", [3.0, 6.0])
def test_a_lesion_that_is_too_faint_in_the_second_visit_is_not_labelled(
    source, monkeypatch, slices_mm
):
    lesion = make_lesion(make_shape(6, np.add(MNI_SHIFT_MM, (28, 0, 0))), contrasts=(0, 0.3))
    monkeypatch.setattr(pairs, "draw_lesions", lambda *_: [lesion])
    sessions = both(quiet(source.spacing_mm), quiet((2.0, 2.0, slices_mm)))
    monkeypatch.setattr(pairs, "draw_sessions", lambda *_: sessions)
    made = make_pair(source, make_bank(), 0, 0, 0.0)
    label = made.volumes[CONSENSUS] > 0
    rise = (made.volumes[TIME02].astype(float) - made.volumes[TIME01])[label].max() / 300
    assert (rise > 0.3) == (slices_mm == 3.0), "the lesion is fainter in thick slices"
    for least_contrast, labelled in ((rise - 0.1, True), (rise + 0.1, False)):
        again = make_pair(source, make_bank(), 0, 0, least_contrast)
        assert again.volumes[CONSENSUS].any() == labelled
        np.testing.assert_array_equal(again.volumes[TIME02], made.volumes[TIME02])


def test_each_lesion_is_placed_in_the_visit_where_it_is_most_visible(source, monkeypatch):
    shape = make_shape(6, (28.0, 0.0, 0.0))
    fading, growing = (
        make_lesion(shape, Kind.FADES, contrasts) for contrasts in ((0.4, 0.2), (0.2, 0.4))
    )
    calls = []

    def place(lesion, source, head, taken):
        calls.append((lesion, head))
        return lesion if lesion is growing else None

    monkeypatch.setattr(pairs, "place", place)
    monkeypatch.setattr(pairs, "draw_lesion", lambda *_: growing)
    pairs._find_place(fading, make_bank(), source, ["first", "second"], None, None)
    assert calls == [(fading, "first"), (growing, "second")]


def test_a_pair_without_lesions_has_an_empty_label_and_equal_visits(source, monkeypatch):
    only(monkeypatch)
    made = make_pair(source, make_bank(), 0, 0)
    assert not made.volumes[CONSENSUS].any()
    assert made.record["new_lesions"] == 0
    np.testing.assert_array_equal(made.volumes[TIME01], made.volumes[TIME02])


def test_lesion_changes_of_a_real_pair_are_removed_and_not_labelled(monkeypatch):
    source = make_source((2.0, 2.0, 2.0), noise=0.02)
    change = np.zeros(source.brain.shape, bool)
    change[38:42, 26:30, 26:30] = True
    second = source.images[0] * np.where(change, np.float32(1.6), np.float32(1))
    images = np.stack([source.images[0], second])
    only(monkeypatch)
    for number in range(4):  # covers both orders of the visits, and both choices of `shown`
        made = make_pair(replace(source, images=images, lesions=change), make_bank(), 0, number)
        assert not made.volumes[CONSENSUS].any()
        first, second = (made.volumes[name].astype(float) / 300 for name in (TIME01, TIME02))
        assert np.abs(second - first).max() < 0.12
