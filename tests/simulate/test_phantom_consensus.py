"""The consensus rule for four experts, checked against results computed by hand."""

import numpy as np
import pytest

from msseg_jax.simulate.phantom import consensus


def lines(*rows):
    """Return expert maps (experts, 1, 1, voxels), each from one line of voxels."""
    return np.array([[[[c == "#" for c in row]]] for row in rows])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # Four experts drew the lesion, so a voxel needs two votes.
        (("###.", ".##.", ".###", ".#.."), ".##."),
        # Three experts drew it. Half of three is 1.5, so a voxel needs two votes.
        (("##..", ".##.", ".##.", "...."), ".##."),
        # Only two of four experts drew it, so it is not kept, although they agree.
        (("###.", "###.", "....", "...."), "...."),
        # The maps touch, so the union is one lesion drawn by four experts. Each half has two of
        # four votes.
        (("##..", "##..", "..##", "..##"), "####"),
        # The maps do not touch, so there are two lesions, each drawn by only two experts.
        (("##...", "##...", "...##", "...##"), "....."),
        # Three experts drew the first lesion, but only two of them drew the second one.
        (("##.#.", "##...", "##.#.", "....."), "##..."),
        (("....", "....", "....", "...."), "...."),
    ],
)
def test_consensus_matches_the_result_computed_by_hand(rows, expected):
    np.testing.assert_array_equal(consensus(lines(*rows)), lines(expected)[0])


def test_voxels_that_share_a_corner_belong_to_one_lesion():
    masks = np.zeros((4, 2, 2, 2), np.uint8)
    masks[:2, 0, 0, 0] = 1
    masks[2:, 1, 1, 1] = 1
    # This is one lesion drawn by four experts. Each voxel has two of four votes.
    assert consensus(masks).tolist() == masks.any(0).tolist()


def test_consensus_refuses_a_single_map():
    with pytest.raises(ValueError, match=r"Expected \(experts, D, H, W\)"):
        consensus(np.zeros((4, 4, 4)))
