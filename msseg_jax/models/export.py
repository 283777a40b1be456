"""Export trained networks, from runs, cross-validations and model files, to one model file."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from msseg_jax.models.agreed_options import agreed_options
from msseg_jax.models.folds import runs_of
from msseg_jax.models.model_file import About, TrainedNetwork, is_model_file, write_model_file
from msseg_jax.models.networks import trained_networks
from msseg_jax.models.reliability import Reliability, read_reliability
from msseg_jax.system.errors import InputError

TERMS = ("licence", "attribution")  # also apply to a new file with these networks

logger = logging.getLogger(__name__)


def export(
    models: list[Path],
    output: Path,
    texts: Mapping[str, str],
    predict: Mapping[str, float],
    reliability: Path | None = None,
) -> None:
    """Write the networks of runs, cross-validations and model files into one model file.

    Args:
      texts: fields of `About`. The others are taken from `models`.
      predict: fields of config.predict. They replace those of all networks.
      reliability: a reliability table of all these networks together (JSON). Without it, the table
        of a single model file is kept. The tables of several models are left out, because they do
        not hold for the mean over all networks.

    Raises:
      InputError: a model cannot be read; the models differ in a value that a file has only once;
        the name of the file or a text is invalid; or the table cannot be read, or was counted with
        other options than the new file has.
      OSError: the file cannot be written.
    """
    paths = runs_of(models)
    networks = [network for path in paths for network in trained_networks(path)]
    about = _about(paths, networks, output, texts)
    networks = [_with_options(network, predict) for network in networks]
    options = agreed_options(networks)  # raise now what predicting with the file would raise
    if reliability is None:
        table = _table(paths, networks)
        if table is not None and (problem := table.mismatch(options)):
            logger.warning(
                "the reliability table does not hold for the options of the new file: %s. It is "
                "kept, and stated only in predictions with its own options.",
                problem,
            )
    else:
        table = read_reliability(reliability)
        if problem := table.mismatch(options):
            raise InputError(
                f"--reliability={reliability}: in the new model file, {problem}. Expected the same "
                "options. Give the same values, or count again with the options of the model."
            )
    write_model_file(output, about, networks, table)


def _table(paths: list[Path], networks: list[TrainedNetwork]) -> Reliability | None:
    """Return the reliability table of a single model file, if it has one."""
    with_table = [network for network in networks if network.reliability is not None]
    if with_table and len(paths) > 1:
        logger.warning(
            "the reliability table of %s is left out, because it does not hold for its mean with "
            "other networks. Count a new one, and give it with --reliability.",
            with_table[0].source,
        )
        return None
    return with_table[0].reliability if with_table else None


def _about(
    paths: list[Path], networks: list[TrainedNetwork], output: Path, texts: Mapping[str, str]
) -> About:
    """Return the description of the new file.

    If `paths` is a single model file, its description is kept. If not, a new description is made,
    with the name of the file `output`. Its licence and its attribution are those of the model files
    in `paths`, and of the model files from which the runs in `paths` were started. An attribution
    in `texts` comes first and does not replace theirs.
    """
    earlier = [network.about for network in networks if network.about]
    if len(paths) == 1 and is_model_file(paths[0]):
        return earlier[0].model_copy(update=dict(texts))
    about = About(name=output.name.removesuffix(output.suffix))
    for field in TERMS:
        terms = sorted({getattr(one, field) for one in earlier} - {""})
        if len(terms) > 1 and field not in texts:
            raise InputError(
                f"--{field}: the networks come from model files with different texts ("
                + "; ".join(repr(text) for text in terms)
                + f"). Expected one text for all. Give --{field}."
            )
        if terms:
            about = about.model_copy(update={field: terms[0]})
    given = dict(texts)
    if "attribution" in given:
        own = given["attribution"]
        others = sorted({one.attribution for one in earlier} - {""})
        given["attribution"] = "\n".join([own, *(one for one in others if one not in own)])
    return about.model_copy(update=given)


def _with_options(network: TrainedNetwork, predict: Mapping[str, float]) -> TrainedNetwork:
    """Return a copy of the network with other values in its config.predict."""
    settings = network.config.predict.model_copy(update=dict(predict))
    return replace(network, config=network.config.model_copy(update={"predict": settings}))
