"""Load the networks of `msseg predict`, with and without --prepare."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from msseg_jax.cli.ending import last_line, patients_in_words, status_after
from msseg_jax.configuration.options import Options
from msseg_jax.inference.cohort import write_cohort
from msseg_jax.inference.ensemble import NEEDED, Ensemble
from msseg_jax.inference.outputs import Outputs
from msseg_jax.inference.patients import Tally
from msseg_jax.models.folds import runs_of
from msseg_jax.models.released import WEIGHTS, released
from msseg_jax.system.errors import InputError
from msseg_jax.system.words import count_of

RELEASED = "released"  # what the released weights are called in the first line
MOST_NAMES = 4  # names of models in that line


def outputs_of(flags: argparse.Namespace, in_middle: Path | None = None) -> Outputs:
    """Return the paths of the results that the flags ask for.

    Args:
      in_middle: with --prepare, the path of the mask on the prepared pair's grid.
    """
    outputs = Outputs(
        flags.output, flags.probability, flags.report, flags.uncertainty, in_middle,
        flags.changes, flags.lesions01, flags.lesions02,
    )  # fmt: skip
    return outputs if flags.dataset else outputs.with_tables()


def load_networks(flags: argparse.Namespace, models: list[Path]) -> tuple[Ensemble, Options]:
    """Load the networks, print which ones they are, and choose the options of the prediction.

    Args:
      flags: the flags of `msseg predict`.
      models: runs and model files, from `models_of`.

    Returns:
      The networks, and the options.

    Raises:
      InputError: a model cannot be read, the networks cannot be applied with these options,
        --uncertainty is given for a single network, or the networks do not give an output.
    """
    ensemble = Ensemble(models)
    first = ensemble.members[0].network
    if flags.uncertainty is not None and len(ensemble.members) == 1:
        raise InputError(
            f"--uncertainty: {first.source} is only one network. Expected several, because the "
            "uncertainty is the spread of their probabilities. Give --model two or more times, or "
            "give the folder of a cross-validation or a model file with several networks."
        )
    for output in NEEDED:
        if getattr(flags, output) is not None and (problem := ensemble.problem_with(output)):
            raise InputError(f"--{output}: {problem}")
    options = ensemble.options(
        overlap=flags.overlap, threshold=flags.threshold,
        min_lesion_mm3=flags.min_lesion_mm3, min_peak=flags.min_peak,
        batch_size=flags.batch_size, tile=flags.tile, flips=flags.flips,
    )  # fmt: skip
    print(_weights_in_words(ensemble, flags.model or [Path(WEIGHTS)]))
    return ensemble, options


def _weights_in_words(ensemble: Ensemble, models: list[Path]) -> str:
    """Return a line that says which networks are used.

    Args:
      models: as the user gives them.
    """
    names = []
    for model in models:
        name, file = (RELEASED, released()) if str(model) == WEIGHTS else (str(model), model)
        title = ensemble.titles.get(file)
        names.append(f'{name}, "{title}"' if title else name)
    if len(names) > MOST_NAMES:
        names = [*names[: MOST_NAMES - 1], f"{len(names) - MOST_NAMES + 1} more"]
    networks = count_of(len(ensemble.members), "network")
    return f"weights: {' + '.join(names)}, {networks}; for research, not for clinical use"


def end_folder(tally: Tally, problems: Mapping[str, str], outputs: Outputs, began_s: float) -> int:
    """Write the tables of all patients, print who failed and what to open, and return the status.

    Args:
      problems: {name: what is wrong} of the folders that could not be used at all.

    Raises:
      KeyboardInterrupt: Ctrl-C has ended the prediction. The tables show what was done before.
    """
    failures = dict(sorted((dict(problems) | tally.failures).items()))
    done = sorted(tally.predicted + tally.done_before)
    page = write_cohort(outputs, done, failures, tally.not_reached)
    if tally.interrupted:
        raise KeyboardInterrupt
    total = len({*failures, *done})
    status = status_after(failures, total, "patient")
    done_before = [name for name in tally.done_before if name not in failures]
    content = patients_in_words(total, len(failures), len(done_before))
    kind, place = ("masks", outputs.mask) if page is None else ("patients", page)
    print(last_line(kind, place, content, began_s))
    return status


def models_of(flags: argparse.Namespace) -> list[Path]:
    """Return the runs and model files of --model; without --model, the released weights.

    Raises:
      InputError: a model is given twice, or there are no released weights.
    """
    return runs_of(flags.model or [Path(WEIGHTS)])
