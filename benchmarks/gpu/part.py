"""Run one part of the GPU benchmark in this process. `benchmarks.gpu` starts it."""

import argparse
import importlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

MARK = "RESULT "  # begins the lines of the output that the main process reads


class Part(NamedTuple):
    """A part: the module in `parts`, its share of the budget, and its argument."""

    module: str
    share_s: float  # of BUDGET_S
    argument: str = ""


# In order of value. Later parts use what earlier ones timed and compiled. A part also gets the time
# that earlier parts have left.
PARTS = {
    "versions": Part("versions", 15),
    "agreement": Part("agreement", 50),
    "forms-float32": Part("forms", 80, "float32"),
    "steps-float32": Part("steps", 70, "float32"),
    "torch-float32": Part("torch_steps", 35, "float32"),
    "forms-bfloat16": Part("forms", 100, "bfloat16"),
    "steps-bfloat16": Part("steps", 40, "bfloat16"),
    "torch-bfloat16": Part("torch_steps", 25, "bfloat16"),
    "profile": Part("profile", 20, "float32"),
    "pair": Part("pair", 20),
    "tests": Part("tests", 15),
}
BUDGET_S = sum(part.share_s for part in PARTS.values())  # the script must end within 8 minutes


@dataclass(frozen=True)
class Task:
    """The settings that all parts share."""

    argument: str
    folder: Path  # of the results
    scratch: Path  # of everything else; all parts share it
    deadline: float  # on the monotonic clock
    small: bool

    @property
    def left_s(self) -> float:
        """Seconds until this part is stopped."""
        return self.deadline - time.monotonic()

    def report(self, **results: object) -> None:
        """Report results, by name. They are kept even if this part is stopped later."""
        print("\n" + MARK + json.dumps(results), flush=True)  # after an unfinished line, perhaps

    def configuration(self):
        """Return `configs/msseg2.py`; with --small, a tiny network and tiny patches."""
        from msseg_jax.configuration.files import find, read

        config = read(find("msseg2"))
        # Phantoms with large voxels are made quickly. The size of a step does not depend on them.
        config = config.with_data(spacing_mm=2.0)
        if self.small:
            model = config.model.model_copy(
                update={"widths": (3, 2), "node_convolutions": 1, "refinement_convolutions": 1}
            )
            train = config.train.model_copy(update={"batch_size": 2})
            predict = config.predict.model_copy(update={"overlap": 2})
            config = config.with_data(spacing_mm=4.0, patch_size=8).model_copy(
                update={"model": model, "train": train, "predict": predict}
            )
        return config

    def on_gpu(self) -> bool:
        """Return whether JAX has a GPU. If not, and without --small, report that this is needed."""
        import jax

        found = jax.default_backend() == "gpu"
        if not found and not self.small:
            self.report(skipped="JAX has no GPU. Use --small to test the script on a CPU")
        return found


def main() -> None:
    """Run the part that the command names."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu.part", description=__doc__)
    parser.add_argument("name", choices=list(PARTS))
    parser.add_argument("folder", type=Path, help="folder for the results")
    parser.add_argument("scratch", type=Path, help="folder for everything else")
    parser.add_argument("limit_s", type=float, help="this part is stopped after so many seconds")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to test the script")
    flags = parser.parse_args()
    # PyTorch and other processes need memory, too. Peaks are measured, so nothing is reserved.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    part = PARTS[flags.name]
    module = importlib.import_module(f"benchmarks.gpu.parts.{part.module}")
    deadline = time.monotonic() + flags.limit_s
    module.run(Task(part.argument, flags.folder, flags.scratch, deadline, flags.small))


if __name__ == "__main__":
    main()
