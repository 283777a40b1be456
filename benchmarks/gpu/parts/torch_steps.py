"""The time of PyTorch's training step on the same card."""

import statistics
from itertools import product

from benchmarks.train import SLOW_TORCH, TORCH_ORDERS, TorchTraining


def run(task):
    """Time eager PyTorch with both memory orders, then `torch.compile`."""
    try:
        import torch
    except ModuleNotFoundError:
        task.report(skipped="PyTorch is not installed")
        return
    task.report(dtype=task.argument, torch=torch.__version__)
    if torch.__version__.startswith(SLOW_TORCH):
        task.report(skipped="this version of PyTorch is slow; install another one to compare with")
        return
    cuda = torch.cuda.is_available()
    if not cuda and not task.small:
        task.report(skipped="PyTorch has no GPU")
        return
    config = task.configuration()
    steps, repeats = (2, 2) if task.small else (10, 3)
    compiled = (False,) if task.small else (False, True)  # compilation takes minutes on a CPU
    for compiles, order in product(compiled, TORCH_ORDERS):
        name = f"{order}{', compiled' if compiles else ''}"
        try:
            training = TorchTraining(
                config, "cuda" if cuda else "cpu", task.argument, TORCH_ORDERS[order], compiles
            )
            seconds = [training.run(steps) / steps for _ in range(repeats)]
        except Exception as error:  # torch.compile may raise anything; continue with the others
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            task.report(**{f"{name}, failed": reason})
            continue
        task.report(**{f"{name}, ms": round(statistics.median(seconds) * 1e3, 2)})
        if cuda:
            task.report(**{f"{name}, peak_gib": torch.cuda.max_memory_allocated() / 2**30})
            torch.cuda.reset_peak_memory_stats()
        del training
