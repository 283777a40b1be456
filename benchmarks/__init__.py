"""Benchmarks and experiments. `python -m benchmarks.NAME --help` shows how to run one."""
