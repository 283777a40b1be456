"""Everything that only a GPU can show, in a few minutes. `benchmarks/gpu.sh` runs it.

Each part (`parts`) runs in a process of its own (`part`) with a time limit, in order of value. What
a part has reported before it fails or is stopped is kept. `summary` writes the results.
"""
