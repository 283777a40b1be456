"""Normal structures that differ between the visits: fluid spaces, bright lines, flow, protocol."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from msseg_jax.simulate.synthetic.anatomy import Anatomy, scale_contrast
from msseg_jax.simulate.synthetic.erase import AROUND_MM, SOFT_MM
from msseg_jax.simulate.synthetic.sessions import draw_sessions
from msseg_jax.simulate.synthetic.visit import SimulatedVisit, SourceGrid
from msseg_jax.volumes.anatomy import CISTERNS_MM
from tests.support.brains import MNI_SHIFT_MM, ball_mask, make_source, quiet


def scanned(source, session):
    grid = SourceGrid(source.brain.shape, np.eye(4))
    return SimulatedVisit(source, Anatomy(source), session, grid).scan(source.images[0])


def with_fluid(source, centre_mm, radius_mm):
    """Return the source with a ball of fluid around a point in MNI space, and its mask."""
    fluid = ball_mask(source, centre_mm, radius_mm)
    images = source.images.copy()
    images[0][fluid] = 0.2
    return replace(source, images=images), fluid


# ------------------------------------------------------------------------------ contrast of regions


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.6])
def test_scaling_multiplies_the_contrast_and_changes_nothing_outside(factor):
    source = make_source()
    region = ball_mask(source, np.add(MNI_SHIFT_MM, (26, 0, 0)), 6)
    image = source.images[0] * np.float32(0.9)
    image[region] = 1.5
    scaled = scale_contrast(image, region, factor, source.spacing_mm)
    np.testing.assert_allclose(scaled[region], 0.9 + factor * 0.6, atol=2e-3)
    far_mm = ndimage.distance_transform_edt(~region, source.spacing_mm)
    far = far_mm > AROUND_MM + 5 * SOFT_MM
    np.testing.assert_array_equal(scaled[far], image[far])
    # The tissue next to the region has no contrast. Its edge is not moved either.
    np.testing.assert_allclose(scaled[~region], image[~region], atol=2e-3)


def test_scaling_leaves_dark_voxels_of_a_region_as_they_are():
    """A lesion mask may contain some fluid, which must not become darker or brighter."""
    source = make_source()
    region = ball_mask(source, np.add(MNI_SHIFT_MM, (26, 0, 0)), 6)
    image = source.images[0].copy()
    image[region] = 0.3
    np.testing.assert_array_equal(scale_contrast(image, region, 1.5, source.spacing_mm), image)


# ------------------------------------------------------------------------------------- atrophy


def radius_mm(source, image) -> float:
    """Return the radius of the fluid core, from its partial volumes."""
    share = np.clip((1.0 - image) / 0.8, 0, 1)[ball_mask(source, MNI_SHIFT_MM, 30)]
    return float((share.sum() * np.prod(source.spacing_mm) * 3 / (4 * np.pi)) ** (1 / 3))


@pytest.mark.parametrize("atrophy_mm", [0.4, 1.0])
def test_atrophy_widens_a_ventricle_by_its_length_and_moves_nothing_far_away(atrophy_mm):
    source = make_source((1.5, 1.5, 1.5), fluid_mm=16)
    wider = scanned(source, quiet(source.spacing_mm, atrophy_mm=atrophy_mm))
    before = radius_mm(source, source.images[0])
    assert before == pytest.approx(16, abs=0.2)
    assert radius_mm(source, wider) - before == pytest.approx(atrophy_mm, rel=0.15)
    far = ~ball_mask(source, MNI_SHIFT_MM, 30)
    np.testing.assert_allclose(wider[far], source.images[0][far], atol=1e-5)


def test_labels_move_with_the_tissue_next_to_wider_fluid_spaces():
    """A lesion 3 mm from the ventricle is pushed outwards, and its label with it."""
    source = make_source((1.0, 1.0, 1.0), fluid_mm=16)
    lesion = ball_mask(source, np.add(MNI_SHIFT_MM, (21, 0, 0)), 2.2)
    images = source.images.copy()
    images[0][lesion] = 1.6
    source = replace(source, images=images)
    session = quiet(source.spacing_mm, atrophy_mm=1.0)
    grid = SourceGrid(source.brain.shape, np.eye(4))
    visit = SimulatedVisit(source, Anatomy(source), session, grid)
    bright = np.clip((visit.scan(source.images[0]) - 1) / 0.6, 0, 1)
    label = visit.see(lesion.astype(np.float32))
    moved = np.subtract(ndimage.center_of_mass(label), ndimage.center_of_mass(lesion))
    np.testing.assert_allclose(moved[1:], 0, atol=0.05)
    assert 0.4 < moved[0] < 1.0
    np.testing.assert_allclose(
        ndimage.center_of_mass(label), ndimage.center_of_mass(bright), atol=0.1
    )
    assert np.abs(label - bright).max() < 0.15


# ------------------------------------------------------------------------- ventricles, their rims


def test_the_ventricles_are_the_large_fluid_spaces_in_the_middle_of_the_brain():
    source = make_source((1.5, 1.5, 1.5))
    core = source.brain & (source.images[0] < 0.5)
    np.testing.assert_array_equal(Anatomy(source).ventricles, ndimage.binary_opening(core))
    # Fluid below the ventricles, and a small space between them, are no ventricles.
    two, below = with_fluid(source, (3, -5, -25), 7)
    three, small = with_fluid(two, (25, -5, 7), 2.8)
    assert below.sum() > 300
    assert small.sum() > 10
    np.testing.assert_array_equal(Anatomy(three).ventricles, Anatomy(source).ventricles)


def test_bright_lines_lie_along_the_ventricles_only():
    source = make_source((1.0, 1.0, 1.0), fluid_mm=20)
    source, _ = with_fluid(source, (3, -5, -29), 6)  # another fluid space
    anatomy = Anatomy(source)
    to_ventricle_mm = ndimage.distance_transform_edt(~anatomy.ventricles, source.spacing_mm)
    lines = [anatomy.rims(seed) for seed in range(4)]
    for weights in lines:
        assert weights.min() >= 0
        assert 0.4 < weights.max() <= 1
        assert not weights[anatomy.ventricles].any()
        near = to_ventricle_mm <= 5
        assert weights[near].sum() > 0.9 * weights.sum()
        assert weights[to_ventricle_mm > 15].max() < 0.02
        # They come and go along the ventricle.
        edge = weights[(to_ventricle_mm > 0) & (to_ventricle_mm <= 1)]
        assert np.mean(edge < 0.1) > 0.05
        assert np.mean(edge > 0.3) > 0.05
    np.testing.assert_array_equal(lines[0], anatomy.rims(0))
    assert np.abs(lines[0] - lines[1]).max() > 0.3, "the seed chooses their places"


def test_a_head_without_ventricles_has_no_bright_lines():
    assert not Anatomy(make_source(fluid_mm=0)).rims(0).any()


# ---------------------------------------------------------------------------------------- flow


def test_flow_in_the_cisterns_brightens_fluid_near_the_brain_stem_only():
    source = make_source((2.0, 2.0, 2.0), fluid_mm=0)
    source, near = with_fluid(source, np.add(CISTERNS_MM, (0, 0, 5)), 5)
    source, far = with_fluid(source, (3, -5, 40), 5)
    tissue = source.images[0] == 1
    rises = []
    for seed in range(6):
        session = quiet(source.spacing_mm, cistern_flow=1.0, seed=seed)
        rise = scanned(source, session) - source.images[0]
        assert np.abs(rise[far]).max() < 0.03
        np.testing.assert_allclose(rise[tissue], 0, atol=1e-6)
        rises.append(rise[near].max())
    assert max(rises) > 0.5


# ------------------------------------------------------------------------------- skull-stripping


@pytest.mark.parametrize("stripped_mm", [0.0, 3.0])
def test_a_stripped_visit_shows_nothing_further_than_this_outside_the_brain(stripped_mm):
    source = make_source()
    head = np.where(source.brain, source.images[0], np.float32(0.7))  # with a scalp
    source = replace(source, images=head[None])
    seen = scanned(source, quiet(source.spacing_mm, stripped_mm=stripped_mm))
    outside_mm = ndimage.distance_transform_edt(~source.brain, source.spacing_mm)
    kept = outside_mm <= stripped_mm
    np.testing.assert_array_equal(seen[kept], head[kept])
    assert not seen[~kept].any()
    np.testing.assert_array_equal(scanned(source, quiet(source.spacing_mm)), head)


# ------------------------------------------------------------------------------- settings drawn


def test_visits_differ_in_what_makes_false_lesions(rng):
    """Each effect occurs in some pairs and is absent from others."""
    drawn = [draw_sessions(np.ones(3), False, rng) for _ in range(400)]
    first, second = ([sessions.visits[k] for sessions in drawn] for k in (0, 1))
    atrophy = np.array([[a.atrophy_mm, b.atrophy_mm] for a, b in zip(first, second, strict=True)])
    assert not (atrophy.min(axis=1) > 0).any(), "one visit has the wider fluid spaces, not both"
    assert 0.4 < (atrophy.max(axis=1) > 0).mean() < 0.6
    assert (atrophy[:, 1] > 0).sum() > 3 * (atrophy[:, 0] > 0).sum(), "mostly the later visit"
    assert atrophy[atrophy > 0].min() >= 0.2
    assert atrophy.max() <= 1.2
    factors = [np.log(b.lesion_contrast / a.lesion_contrast)
               for a, b in zip(first, second, strict=True)]  # fmt: skip
    assert 0.3 < np.max(np.abs(factors)) <= 0.4
    for a, b in zip(first, second, strict=True):
        assert (a.rims > 0) == (b.rims > 0), "the lines are in the head, the protocol scales them"
    stripped = np.array(
        [[s.stripped_mm is not None for s in sessions.visits] for sessions in drawn]
    )
    assert 0.2 < stripped.any(axis=1).mean() < 0.4
    assert 0 < stripped.all(axis=1).sum() < stripped.any(axis=1).sum()
    thick = np.array([[s.spacing_mm.max() > 3 for s in each.visits] for each in drawn])
    assert np.mean(thick[:, 0] != thick[:, 1]) > 0.1, "a 2D visit next to a 3D one"
    assert np.mean(thick.all(axis=1)) > 0.1
    margins = np.array([sessions.mask_margin_mm for sessions in drawn])
    assert 0.4 < (margins > 0).mean() < 0.6
    assert margins.max() <= 5


def test_a_real_pair_gets_less_variation_and_keeps_its_grid(rng):
    spacing_mm = np.array([0.7, 0.7, 3.0])
    for sessions in [draw_sessions(spacing_mm, True, rng) for _ in range(100)]:
        for session in sessions.visits:
            np.testing.assert_array_equal(session.spacing_mm, spacing_mm)
            np.testing.assert_array_equal(session.pose, np.eye(4))
            assert abs(np.log(session.lesion_contrast)) <= 0.1
            assert session.atrophy_mm <= 0.6
