"""The rule by which four synthetic experts become a consensus, by hand."""

import numpy as np
import pytest

from msseg_jax.simulate.phantom import consensus


def lines(*rows):
    """Expert maps from one line of voxels each: (experts, 1, 1, voxels)."""
    return np.array([[[[c == "#" for c in row]]] for row in rows])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # Four drew it: a voxel needs two votes.
        (("###.", ".##.", ".###", ".#.."), ".##."),
        # Three drew it: half of three is 1.5, so two votes; one vote is not enough.
        (("##..", ".##.", ".##.", "...."), ".##."),
        # Two of four: not a lesion, however much they agree.
        (("###.", "###.", "....", "...."), "...."),
        # Components of the union: two experts left and two right of a bridge make one lesion
        # of four, each end of which has half of the votes.
        (("##..", "##..", "..##", "..##"), "####"),
        # Without contact they are two lesions of two experts each.
        (("##...", "##...", "...##", "...##"), "....."),
        # One lesion kept, another one of the same experts not.
        (("##.#.", "##...", "##.#.", "....."), "##..."),
        (("....", "....", "....", "...."), "...."),
    ],
)
def test_consensus_by_hand(rows, expected):
    np.testing.assert_array_equal(consensus(lines(*rows)), lines(expected)[0])


def test_consensus_joins_lesions_over_corners():
    masks = np.zeros((4, 2, 2, 2), np.uint8)
    masks[:2, 0, 0, 0] = 1
    masks[2:, 1, 1, 1] = 1
    # One lesion of four experts, each voxel with half of them.
    assert consensus(masks).tolist() == masks.any(0).tolist()


def test_consensus_refuses_a_single_map():
    with pytest.raises(ValueError, match=r"expected \(experts, D, H, W\)"):
        consensus(np.zeros((4, 4, 4)))
