"""Compare the speed of conv3d and lax.conv_general_dilated at the network's layer sizes.

Usage: python -m benchmarks.convolution [--repeats 5] [--batch 4]
The two functions take turns in one process, and each figure is a median. On a shared machine only
the ratio is meaningful, not the milliseconds.
"""

import argparse
import statistics
import time

LAYERS = (  # side in voxels, input channels, output channels
    (56, 1, 6),
    (56, 6, 6),
    (56, 13, 6),
    (56, 19, 6),
    (56, 25, 6),
    (56, 6, 5),
    (56, 5, 5),
    (28, 7, 7),
    (28, 15, 7),
    (28, 22, 7),
    (14, 8, 8),
    (7, 8, 8),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="calls of each function; default: 5")
    parser.add_argument("--batch", type=int, default=4, help="volumes, two for a pair; default: 4")
    flags = parser.parse_args()
    import jax
    import numpy as np
    from jax import lax

    from msseg_jax.network import convolution

    def conv3d(x, kernel):
        return convolution.conv3d((x,), kernel)

    def direct(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
        )

    def seconds(function, args):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        return time.perf_counter() - start

    def passes(conv):
        return {
            "forward": jax.jit(lambda x, kernel, dy: conv(x, kernel)),
            "d/d input": jax.jit(
                lambda x, kernel, dy: jax.vjp(lambda v: conv(v, kernel), x)[1](dy)
            ),
            "d/d kernel": jax.jit(
                lambda x, kernel, dy: jax.vjp(lambda k: conv(x, k), kernel)[1](dy)
            ),
        }

    rng = np.random.default_rng(0)
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, batch {flags.batch}, float32")
    print(
        f"{'side':>4} {'channels':>8} {'pass':<10} {'direct ms':>9} {'conv3d ms':>9} {'ratio':>6}"
    )
    for side, c_in, c_out in LAYERS:
        args = [
            jax.device_put(rng.standard_normal(shape, np.float32))
            for shape in (
                (flags.batch, side, side, side, c_in),
                (3, 3, 3, c_in, c_out),
                (flags.batch, side, side, side, c_out),
            )
        ]
        direct_passes, our_passes = passes(direct), passes(conv3d)
        for name in direct_passes:
            pair = direct_passes[name], our_passes[name]
            for function in pair:
                seconds(function, args)  # the first call compiles
            turns = [[seconds(function, args) for function in pair] for _ in range(flags.repeats)]
            theirs, ours = (statistics.median(column) for column in zip(*turns, strict=True))
            print(
                f"{side:>4} {f'{c_in}>{c_out}':>8} {name:<10} {theirs * 1e3:>9.1f} "
                f"{ours * 1e3:>9.1f} {theirs / ours:>6.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
