"""The five label maps of a synthetic pair agree with what its images show."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from msseg_jax.simulate.synthetic import pair as pairs
from msseg_jax.simulate.synthetic.erase import AROUND_MM, SOFT_MM
from msseg_jax.simulate.synthetic.marks import ENLARGING, LABELLED, LESIONS01, LESIONS02, VANISHED
from msseg_jax.simulate.synthetic.pair import WHITE, make_pair
from msseg_jax.simulate.synthetic.plan import Kind
from msseg_jax.volumes.layout import BRAIN_MASK, CONSENSUS, TIME01, TIME02
from tests.support.brains import (
    MNI_SHIFT_MM,
    ball_mask,
    both,
    make_bank,
    make_lesion,
    make_shape,
    make_source,
    quiet,
)

SPACING_MM = (2.0, 2.0, 3.0)
CHANGES, ALL = (CONSENSUS, ENLARGING, VANISHED), (LESIONS01, LESIONS02)
CONTRAST = 0.4
# For each kind of lesion: its contrasts and its sizes, one per visit each.
COURSES = {
    Kind.NEW: ((0.0, CONTRAST), (1.0, 1.0)),
    Kind.PERSISTS: ((CONTRAST, CONTRAST), (1.0, 1.0)),
    Kind.ENLARGES: ((CONTRAST, CONTRAST), (0.55, 1.0)),
    Kind.SHRINKS: ((CONTRAST, CONTRAST), (1.0, 0.55)),
    Kind.FADES: ((CONTRAST, 0.25), (1.0, 1.0)),
    Kind.VANISHES: ((CONTRAST, 0.0), (1.0, 1.0)),
}
# The map that shows the change, and its sign in the image.
CHANGE_OF = {
    Kind.NEW: (CONSENSUS, 1),
    Kind.ENLARGES: (ENLARGING, 1),
    Kind.SHRINKS: (VANISHED, -1),
    Kind.VANISHES: (VANISHED, -1),
}
CENTRE_MM = np.add(MNI_SHIFT_MM, (26, 0, 0))


@pytest.fixture(scope="module")
def source():
    return replace(make_source(SPACING_MM), lesions_known=True)


def lesion_of(kind: Kind, side_mm: int = 12, centre_mm=CENTRE_MM):
    contrasts, sizes = COURSES[kind]
    return make_lesion(make_shape(side_mm, centre_mm), kind, contrasts, sizes=sizes)


def make(monkeypatch, source, lesions=(), first=None, second=None, **settings):
    """Make a pair with these lesions, and with these settings of the visits."""
    spacing_mm = source.spacing_mm
    sessions = both(first or quiet(spacing_mm), second or quiet(spacing_mm), **settings)
    monkeypatch.setattr(pairs, "draw_sessions", lambda *_: sessions)
    monkeypatch.setattr(pairs, "draw_lesions", lambda *_: list(lesions))
    made = make_pair(source, make_bank(), 0, 0)
    # Another lesion would be painted in place of one that cannot be placed.
    painted = sum(made.record["painted"].values())
    assert painted == len(lesions)
    return made


def visits(made) -> tuple[np.ndarray, np.ndarray]:
    """Return both visits; the median of the brain is 1."""
    first, second = (made.volumes[name].astype(float) / WHITE for name in (TIME01, TIME02))
    return first, second


def dice(label: np.ndarray, other: np.ndarray) -> float:
    """Return the Dice of two masks, at least one of which is not empty."""
    return 2 * np.sum((label > 0) & other) / (np.sum(label > 0) + np.sum(other))


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_of_painted_lesion_is_in_the_maps_that_its_images_call_for(
    source, monkeypatch, kind
):
    made = make(monkeypatch, source, [lesion_of(kind)])
    contrasts, _ = COURSES[kind]
    seen = visits(made)
    for name, image, contrast in zip(ALL, seen, contrasts, strict=True):
        if contrast:
            bright = image - source.images[0] > LABELLED * contrast
            assert bright.sum() > 10
            assert dice(made.volumes[name], bright) > 0.95, name
        else:
            assert not made.volumes[name].any(), name
    changed, sign = CHANGE_OF.get(kind, (None, 0))
    for name in CHANGES:
        if name == changed:
            differs = sign * (seen[1] - seen[0]) > LABELLED * CONTRAST
            assert differs.sum() > 10
            assert dice(made.volumes[name], differs) > 0.9, name
        else:
            assert not made.volumes[name].any(), name
    # A record of the volumes of all changes, in mm3.
    for name, field in (
        (CONSENSUS, "new_lesions_mm3"), (ENLARGING, "enlarging_mm3"), (VANISHED, "vanished_mm3"),
    ):  # fmt: skip
        assert sum(made.record[field]) == pytest.approx(12 * made.volumes[name].sum(), abs=0.1)


@pytest.mark.parametrize("kind", [Kind.NEW, Kind.ENLARGES, Kind.SHRINKS, Kind.VANISHES])
def test_a_change_is_outlined_in_the_visit_that_shows_it(source, monkeypatch, kind):
    """A registration error moves the label with the lesion of that visit only."""
    error = np.eye(4)
    error[:3, 3] = (4.0, 0.0, 6.0)  # two voxels, so that nothing is interpolated
    still, moved = quiet(source.spacing_mm), quiet(source.spacing_mm, error=error)
    name, sign = CHANGE_OF[kind]
    before = make(monkeypatch, source, [lesion_of(kind)]).volumes[name]
    assert before.any()
    for first, second, visit in ((moved, still, 0), (still, moved, 1)):
        made = make(monkeypatch, source, [lesion_of(kind)], first, second)
        shown_in = 1 if sign > 0 else 0
        expected = np.roll(before, (-2, 0, -2), (0, 1, 2)) if visit == shown_in else before
        np.testing.assert_array_equal(made.volumes[name], expected)


def test_lesions_that_persist_are_no_change_whatever_else_differs(source, monkeypatch):
    """Misalignment, atrophy, another contrast and other slices are not changes of a lesion."""
    error = np.eye(4)
    error[:3, 3] = (1.0, -0.8, 0.5)
    second = quiet(
        (2.0, 2.0, 5.0), error=error, atrophy_mm=1.0, distortion_mm=0.5, lesion_contrast=1.3,
        rims=0.4, flow=1.0, cistern_flow=1.0, noise=0.02,
    )  # fmt: skip
    made = make(monkeypatch, source, [lesion_of(Kind.PERSISTS)], second=second)
    first, seen = visits(made)
    assert np.abs(seen - first)[made.volumes[LESIONS01] > 0].max() > 0.2, "the images differ"
    for name in CHANGES:
        assert not made.volumes[name].any(), name
    for name in ALL:
        assert made.volumes[name].any(), name


def test_the_maps_of_all_lesions_are_absent_if_the_lesions_of_the_scan_are_not_known(
    source, monkeypatch
):
    lesions = [lesion_of(Kind.NEW)]
    known = make(monkeypatch, source, lesions)
    unknown = make(monkeypatch, replace(source, lesions_known=False), lesions)
    images = {TIME01, TIME02, BRAIN_MASK}
    assert set(known.volumes) == images | set(CHANGES) | set(ALL)
    assert set(unknown.volumes) == images | set(CHANGES)
    assert (known.record["lesions_known"], unknown.record["lesions_known"]) == (True, False)
    for name, volume in unknown.volumes.items():
        np.testing.assert_array_equal(volume, known.volumes[name])


def test_a_scan_that_is_known_to_have_no_lesions_gets_empty_maps(source, monkeypatch):
    made = make(monkeypatch, source)
    for name in (*CHANGES, *ALL):
        assert not made.volumes[name].any(), name


def test_faint_lesions_are_in_no_map(source, monkeypatch):
    """The texture of a lesion makes its brightest voxel brighter than its contrast."""
    made = make(monkeypatch, source, [lesion_of(Kind.FADES)])
    assert made.volumes[LESIONS01].any()
    assert made.volumes[LESIONS02].any()
    for least_contrast, shown in ((0.2, (True, True)), (0.45, (True, False)), (0.8, (False,) * 2)):
        again = make_pair(source, make_bank(), 0, 0, least_contrast)
        assert tuple(again.volumes[name].any() for name in ALL) == shown
        np.testing.assert_array_equal(again.volumes[TIME02], made.volumes[TIME02])


@pytest.mark.parametrize("kind", [Kind.PERSISTS, Kind.NEW])
def test_another_protocol_changes_the_contrast_of_painted_lesions_and_not_their_labels(
    source, monkeypatch, kind
):
    lesions = [lesion_of(kind)]
    same = make(monkeypatch, source, lesions)
    other = make(monkeypatch, source, lesions, second=quiet(source.spacing_mm, lesion_contrast=1.5))
    core = (same.volumes[LESIONS02] > 0) & (visits(same)[1] > 1.2)
    rises = [visits(made)[1][core] - source.images[0][core] for made in (same, other)]
    np.testing.assert_allclose(rises[1] / rises[0], 1.5, atol=0.03)
    np.testing.assert_array_equal(visits(same)[0], visits(other)[0])
    for name in (*CHANGES, *ALL):
        np.testing.assert_array_equal(other.volumes[name], same.volumes[name])


# --------------------------------------------------------------------- lesions of the scan itself


def with_real_lesion(source, rise: float = 0.5):
    """Return the source with a bright ball of 9 mm radius, and the mask of this lesion."""
    lesion = ball_mask(source, CENTRE_MM, 9.0)
    images = source.images.copy()
    images[0][lesion] += np.float32(rise)
    return replace(source, images=images, lesions=lesion), lesion


def change_all(monkeypatch, kind: Kind):
    """Change every real lesion in this way."""
    monkeypatch.setattr(pairs, "REAL_PROBABILITY", 1.0)
    changes = {each: float(each is kind) for each in pairs.REAL_CHANGES}
    monkeypatch.setattr(pairs, "REAL_CHANGES", changes)


@pytest.mark.parametrize(("kind", "name"), [(Kind.NEW, CONSENSUS), (Kind.VANISHES, VANISHED)])
def test_a_real_lesion_is_erased_from_one_visit_and_labelled(monkeypatch, kind, name):
    source, lesion = with_real_lesion(make_source(SPACING_MM, noise=0.02))
    change_all(monkeypatch, kind)
    made = make(monkeypatch, replace(source, lesions_known=True))
    assert made.record["of_the_scan"] == {each.value: int(each is kind) for each in Kind}
    without, with_it = (0, 1) if kind is Kind.NEW else (1, 0)
    for each in CHANGES:
        np.testing.assert_array_equal(made.volumes[each] > 0, lesion & (each == name))
    assert not made.volumes[ALL[without]].any()
    np.testing.assert_array_equal(made.volumes[ALL[with_it]] > 0, lesion)
    seen = visits(made)
    assert seen[without][lesion].mean() == pytest.approx(1.0, abs=0.03)
    assert seen[with_it][lesion].mean() == pytest.approx(1.5, abs=0.03)


@pytest.mark.parametrize(("kind", "name"), [(Kind.ENLARGES, ENLARGING), (Kind.SHRINKS, VANISHED)])
def test_a_part_of_a_real_lesion_is_erased_from_one_visit_and_labelled(monkeypatch, kind, name):
    source, lesion = with_real_lesion(make_source(SPACING_MM, noise=0.02))
    change_all(monkeypatch, kind)
    monkeypatch.setattr(pairs, "CHANGED_PART", (0.5, 0.5))
    made = make(monkeypatch, replace(source, lesions_known=True))
    part = made.volumes[name] > 0
    assert part.sum() / lesion.sum() == pytest.approx(0.5, abs=0.1)
    for each in CHANGES:
        np.testing.assert_array_equal(made.volumes[each] > 0, part & (each == name))
    without, with_it = (0, 1) if kind is Kind.ENLARGES else (1, 0)
    np.testing.assert_array_equal(made.volumes[ALL[without]] > 0, lesion & ~part)
    np.testing.assert_array_equal(made.volumes[ALL[with_it]] > 0, lesion)
    seen = visits(made)
    assert seen[without][part].mean() == pytest.approx(1.0, abs=0.03)
    assert seen[with_it][part].mean() == pytest.approx(1.5, abs=0.03)
    # The edge of an erased part is soft. Further away, nothing changes.
    far_mm = ndimage.distance_transform_edt(~part, source.spacing_mm)
    far = lesion & (far_mm > AROUND_MM + 4 * SOFT_MM)
    assert far.sum() > 20
    np.testing.assert_allclose(seen[without][far], seen[with_it][far], atol=0.01)


def test_real_lesions_that_are_not_changed_persist(monkeypatch):
    source, lesion = with_real_lesion(make_source(SPACING_MM))
    monkeypatch.setattr(pairs, "REAL_PROBABILITY", 0.0)
    other = quiet(source.spacing_mm, lesion_contrast=0.6)
    made = make(monkeypatch, replace(source, lesions_known=True), second=other)
    for name in CHANGES:
        assert not made.volumes[name].any(), name
    for name in ALL:
        np.testing.assert_array_equal(made.volumes[name] > 0, lesion)
    first, second = visits(made)
    assert first[lesion].mean() == pytest.approx(1.5, abs=0.01)
    assert second[lesion].mean() == pytest.approx(1.3, abs=0.01), "0.6 of the contrast of 0.5"


# ------------------------------------------------------------------------- normal bright tissue


def test_a_normal_hyperintensity_changes_its_contrast_and_is_in_no_map(monkeypatch):
    bright, region = with_real_lesion(make_source(SPACING_MM), rise=0.4)
    none = np.zeros_like(region)
    source = replace(bright, lesions=none, normal=region, lesions_known=True)
    other = quiet(source.spacing_mm, normal_contrast=1.5)
    made = make(monkeypatch, source, second=other)
    first, second = visits(made)
    assert first[region].mean() == pytest.approx(1.4, abs=0.01)
    assert second[region].mean() == pytest.approx(1.6, abs=0.01), "1.5 times the contrast of 0.4"
    for name in (*CHANGES, *ALL):
        assert not made.volumes[name].any(), name


def test_no_lesion_is_painted_over_a_normal_hyperintensity(source, monkeypatch):
    """It is found by the mask, also where it is not bright."""
    region = ball_mask(source, CENTRE_MM, 5.0)
    monkeypatch.setattr(pairs, "TRIES", 1)
    monkeypatch.setattr(pairs, "draw_lesions", lambda *_: [lesion_of(Kind.NEW)])
    monkeypatch.setattr(pairs, "draw_sessions", lambda *_: both(*[quiet(source.spacing_mm)] * 2))
    for normal, painted in ((region, 0), (np.zeros_like(region), 1)):
        made = make_pair(replace(source, normal=normal), make_bank(), 0, 0)
        assert made.record["painted"]["new"] == painted


def test_bright_lines_and_flow_are_in_no_map(source, monkeypatch):
    second = quiet(source.spacing_mm, rims=0.6, flow=1.4, cistern_flow=1.2, seed=3)
    made = make(monkeypatch, source, second=second)
    first, seen = visits(made)
    assert (seen - first).max() > 0.3
    for name in (*CHANGES, *ALL):
        assert not made.volumes[name].any(), name


# ------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("margin_mm", [0.0, 5.0])
def test_a_brain_mask_may_be_generous(source, monkeypatch, margin_mm):
    made = make(monkeypatch, source, mask_margin_mm=margin_mm)
    mask = made.volumes[BRAIN_MASK] > 0
    outside_mm = ndimage.distance_transform_edt(~source.brain, source.spacing_mm)
    np.testing.assert_array_equal(mask, outside_mm <= margin_mm)
    assert made.record["mask_margin_mm"] == margin_mm
    # The radius of the brain is 46 mm.
    radius_mm = (mask.sum() * np.prod(SPACING_MM) * 3 / (4 * np.pi)) ** (1 / 3)
    assert radius_mm == pytest.approx(46 + margin_mm, abs=0.8)
