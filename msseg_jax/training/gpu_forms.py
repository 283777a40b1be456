"""Let the GPU choose the fastest form of each convolution before the training starts."""

import contextlib
from collections.abc import Iterator

import jax

from msseg_jax.configuration.sections import Configuration
from msseg_jax.network.convolution import choice, measuring
from msseg_jax.network.convolution.job import Job
from msseg_jax.network.layers import find_layers, forward_jobs, training_jobs
from msseg_jax.network.model import SiameseMPUNet
from msseg_jax.system.errors import InputError
from msseg_jax.system.failures import is_out_of_memory
from msseg_jax.training import processes

# A short training must not wait longer than it gains.
SHARE_S = 0.02  # longest wait for each of its steps
# With less time than this, too little could be timed. It is longer than COMPILE_S of `timing`, so a
# form that is slow to compile is found out, and does not take the time of every training.
LEAST_S = 40.0


def choose_forms(config: Configuration, steps: int) -> None:
    """Time the forms of the convolutions that were not timed on this card before.

    Call this before the training step is compiled. Without an NVIDIA GPU it does nothing. Of
    several processes, the main process times, and all use its choice. Otherwise, the gradients of
    different devices would come from different programs.

    Args:
      steps: steps that are still to be made.
    """
    card = processes.text_of_main("the kind of device", choice.card())
    if processes.any_process(bool(choice.why_not()) or choice.card() != card):
        choice.adopt({})  # if a process cannot use these forms, no process does
        return
    if processes.is_main():
        jobs, budget_s = jobs_of(config), min(measuring.BUDGET_S, SHARE_S * steps)
        todo = measuring.missing(jobs)
        if todo and budget_s >= LEAST_S:
            print(
                f"timing {len(todo)} convolutions on this GPU, for at most "
                f"{budget_s + measuring.START_S:.0f} s; the results are kept for the next training "
                f"({choice.SWITCH}=0 turns this off)", flush=True,
            )  # fmt: skip
            measuring.time_missing(jobs, budget_s)
    text = processes.text_of_main("the convolutions", choice.as_text(choice.known()))
    if not processes.is_main():
        choice.adopt(choice.from_text(text))


@contextlib.contextmanager
def explaining_lack_of_memory(config: Configuration) -> Iterator[None]:
    """Turn JAX's error for a lack of memory into a message that says what to do.

    Raises:
      InputError: memory ran out in the block.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        advice = f"Use a smaller config.train.batch_size (it is {config.train.batch_size})"
        if not choice.why_not():
            advice += (
                f", or set the environment variable {choice.SWITCH}=0: XLA's own convolutions are "
                "then used, which may be slower and need less memory"
            )
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"the memory of the device ran out ({reason}). {advice}.") from error


def jobs_of(config: Configuration) -> list[Job]:
    """Return the passes that this training computes on one device, and its validation."""
    side = config.data.patch_size
    sides = (side, side, side)
    share = config.train.batch_size // jax.device_count()
    trained = SiameseMPUNet(config.model, None, config.train.compute_dtype)
    jobs = training_jobs(find_layers(trained, share, sides))
    tiles = find_layers(SiameseMPUNet(config.model), config.predict.batch_size, sides)
    return jobs + forward_jobs(tiles)
