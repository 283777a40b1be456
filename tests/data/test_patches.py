import numpy as np
import pytest

from msseg_jax.data.patches import crop, draw_corner, draw_patient

BRAIN = np.zeros((20, 22, 24), bool)
BRAIN[5:15, 5:15, 5:15] = True
NO_LESION = [np.zeros((0, 3), int)]


def test_every_patient_gives_one_patch_per_round():
    for round_ in range(5):
        drawn = [draw_patient(3, 7 * round_ + k, 7) for k in range(7)]
        assert sorted(drawn) == list(range(7))
    orders = {tuple(draw_patient(3, 7 * r + k, 7) for k in range(7)) for r in range(20)}
    assert len(orders) > 15  # each round has a different order


def test_a_patch_depends_only_on_seed_and_index():
    forward = [draw_corner(0, i, 8, NO_LESION, BRAIN, 0.8) for i in range(50)]
    backward = [draw_corner(0, i, 8, NO_LESION, BRAIN, 0.8) for i in reversed(range(50))]
    assert forward == backward[::-1]
    other_seed = [draw_corner(1, i, 8, NO_LESION, BRAIN, 0.8) for i in range(50)]
    assert forward != other_seed
    assert len(set(forward)) > 40


def test_four_patches_of_five_contain_a_lesion_voxel():
    voxel = np.array([[1, 20, 12]])  # at the edge, outside the brain: never included by chance
    holds = [
        all(c <= v < c + 4 for c, v in zip(corner, voxel[0], strict=True))
        for corner in (draw_corner(0, i, 4, [voxel], BRAIN, 0.8) for i in range(2000))
    ]
    assert np.mean(holds) == pytest.approx(0.8, abs=0.03)


def test_a_lesion_may_lie_anywhere_in_its_patch():
    voxel = np.array([[10, 10, 10]])
    corners = np.array([draw_corner(0, i, 4, [voxel], BRAIN, 1.0) for i in range(2000)])
    for axis in range(3):
        places, counts = np.unique(10 - corners[:, axis], return_counts=True)
        assert places.tolist() == [0, 1, 2, 3]
        assert counts.min() > 400  # 500 are expected


def test_lesion_voxels_are_drawn_uniformly():
    voxels = np.array([[10, 10, 10], [6, 6, 6], [13, 13, 13]])
    centres = [tuple(draw_corner(0, i, 1, [voxels], BRAIN, 1.0)) for i in range(1500)]
    _, counts = np.unique(centres, axis=0, return_counts=True)
    assert len(counts) == 3
    assert counts.min() > 420


NEW, GROWN, GONE = (np.array([[k, k, k]]) for k in (6, 9, 13))


@pytest.mark.parametrize(
    ("kinds", "shares"),
    [
        ([NEW, GROWN, GONE], [0.5, 0.25, 0.25]),
        ([NEW, GROWN[:0], GONE], [0.5, 0, 0.5]),
        ([NEW[:0], GROWN, GONE], [0, 0.5, 0.5]),
        ([NEW[:0], GROWN[:0], GONE], [0, 0, 1]),
    ],
)
def test_half_of_the_lesion_patches_are_placed_on_new_lesions_and_the_rest_on_the_others(
    kinds, shares
):
    corners = [draw_corner(0, i, 1, kinds, BRAIN, 1.0)[0] for i in range(2000)]
    found = [corners.count(k) / 2000 for k in (6, 9, 13)]
    np.testing.assert_allclose(found, shares, atol=0.035)
    assert sum(found) == 1


def test_kinds_without_a_voxel_do_not_change_the_patches_of_new_lesions():
    one = [draw_corner(0, i, 8, [NEW], BRAIN, 0.8) for i in range(200)]
    three = [draw_corner(0, i, 8, [NEW, GROWN[:0], GONE[:0]], BRAIN, 0.8) for i in range(200)]
    assert one == three
    # These are the patches that runs had before there were several kinds.
    assert one[:3] == [(2, 6, 5), (10, 7, 1), (1, 2, 9)]


def test_other_patches_are_centred_on_brain_voxels():
    centres = np.array([draw_corner(0, i, 8, NO_LESION, BRAIN, 0.8) for i in range(3000)]) + 4
    assert BRAIN[tuple(centres.T)].all()
    np.testing.assert_allclose(centres.mean(0), 9.5, atol=0.3)
    assert centres.min() == 5
    assert centres.max() == 14


def test_crop_pads_voxels_beyond_the_edges():
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    patch = crop(array, (-1, 2, 3), (3, 3, 3), fill=-7)
    assert patch.shape == (2, 3, 3, 3)
    np.testing.assert_array_equal(patch[:, 1:, :2, :2], array[:, :2, 2:, 3:])
    assert (patch[:, 0] == -7).all()
    assert (patch[:, :, 2] == -7).all()
    assert (patch[..., 2] == -7).all()


def test_crop_outside_the_volume_is_all_fill():
    assert (crop(np.zeros((5, 5, 5)), (9, -20, 0), (4, 4, 4), fill=3) == 3).all()


def test_crop_is_a_copy():
    array = np.zeros((5, 5, 5))
    crop(array, (0, 0, 0), (5, 5, 5), fill=0)[...] = 1
    assert (array == 0).all()
