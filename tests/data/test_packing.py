import jax.numpy as jnp
import numpy as np

from msseg_jax.data.intensity import BACKGROUND
from msseg_jax.data.packing import (
    PACKED_BACKGROUND,
    STEP,
    pack_images,
    pack_targets,
    unpack_batch,
    unpack_images,
    unpack_target,
)


def test_intensities_are_accurate_to_a_thousandth_of_a_standard_deviation():
    images = np.random.default_rng(0).normal(0, 6, (2, 9, 8, 7)).astype(np.float32)
    assert np.abs(images).max() > 20
    error = np.abs(unpack_images(pack_images(images)) - images).max()
    assert 0 < error <= STEP / 2 < 5e-4


def test_intensities_beyond_the_range_are_clipped():
    packed = pack_images(np.array([-1e9, 1e9, 40.0], np.float32))
    np.testing.assert_allclose(unpack_images(packed), [-32, 32, 32], atol=STEP)


def test_the_background_is_zero():
    assert unpack_images(np.int16(PACKED_BACKGROUND)) == BACKGROUND == 0


def test_targets_survive_packing():
    targets = np.random.default_rng(0).integers(0, 2, (11, 3, 4, 5)).astype(np.uint8)
    packed = pack_targets(targets)
    assert packed.shape == (2, 3, 4, 5)
    for t in range(11):
        np.testing.assert_array_equal(unpack_target(packed, t), targets[t])


def test_numpy_and_jax_give_bit_identical_results():
    generator = np.random.default_rng(0)
    batch = {
        "images": generator.integers(-32768, 32768, (3, 2, 4, 5, 6)).astype(np.int16),
        "targets": generator.integers(0, 256, (3, 1, 4, 5, 6)).astype(np.uint8),
        "known": generator.random((3, 6)) < 0.5,
        "patch_ids": np.arange(3, dtype=np.int32),
    }
    ours = unpack_batch(batch, 5)
    theirs = unpack_batch({name: jnp.asarray(array) for name, array in batch.items()}, 5)
    assert ours["time02"].shape == (3, 4, 5, 6, 1)
    assert ours["targets"].shape == (3, 4, 5, 6, 5)
    np.testing.assert_array_equal(ours["known"], batch["known"][:, :5])
    np.testing.assert_array_equal(ours["time02"][1, ..., 0], unpack_images(batch["images"][1, 1]))
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        np.testing.assert_array_equal(array, theirs[name])
