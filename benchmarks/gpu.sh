#!/bin/sh
# Collect everything that only a GPU can show: benchmarks/gpu.sh [FOLDER] [--small] [--budget_s 470]
#
# Writes summary.md, summary.json, log.txt and a few more files into FOLDER (default: build/gpu).
# Parts run in order of value. Each has a share of the budget, and the time that earlier parts have
# left. `--only NAMES` gives all the time to some parts.
# PYTHON=... names another Python. Where this package cannot be installed, put the folder of its
# libraries into PYTHONPATH. PyTorch is measured if it is installed. With --small, everything runs
# in minutes on a CPU, to test the script; parts that need a GPU say so.
cd "$(dirname "$0")/.." || exit 1
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
