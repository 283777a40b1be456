"""Describe a model file as text."""

from itertools import pairwise

import jax

from msseg_jax.models.model_file import ModelFile, TrainedNetwork
from msseg_jax.models.reliability import Reliability
from msseg_jax.system.text_table import text_table
from msseg_jax.system.words import count_of


def describe(file: ModelFile) -> str:
    """Return the description of a model file, and a few lines about each of its networks."""
    count = len(file.networks)
    mib = file.path.stat().st_size / 2**20
    rows = [
        ("file", f"{file.path}, {mib:.2f} MiB, written by msseg_jax {file.written_by}"),
        *((name.replace("_", " "), text) for name, text in file.about),
        ("networks", f"{count}" + " (their probabilities are averaged)" * (count > 1)),
    ]
    for number, network in enumerate(file.networks):
        rows += [("", ""), (f"network {number}", f"{network.kind} checkpoint, step {network.step}")]
        rows += _rows(network)
    if file.reliability is not None:
        rows += [("", ""), ("reliability", describe_reliability(file.reliability))]
    lines = []
    for label, text in rows:
        first, *others = text.split("\n")
        lines += [(label, first), *(("", other) for other in others)]
    return text_table(lines, "<<")


def describe_reliability(table: Reliability) -> str:
    """Return a reliability table as lines of text: a row for each bin of the volume."""
    probabilities = _bins(table.above_probability)
    rows = [("volume, mm3", *(f"p {one}" for one in probabilities), "any p")]
    least_mm3, *others = table.above_mm3
    if not others or table.min_lesion_mm3 < others[0]:  # nothing smaller was marked
        least_mm3 = max(least_mm3, table.min_lesion_mm3)
    volumes = _bins((least_mm3, *others))
    for volume, right, marked in zip(volumes, table.right, table.marked, strict=True):
        cells = zip((*right, sum(right)), (*marked, sum(marked)), strict=True)
        rows.append((volume, *(f"{a} of {b}" if b else "-" for a, b in cells)))
    right_in_all, marked_in_all = (sum(map(sum, one)) for one in (table.right, table.marked))
    return "\n".join(
        [
            f"{right_in_all} of {count_of(marked_in_all, 'marked lesion')} were right, by volume "
            "and mean probability p:",
            text_table(rows, "<" + ">" * (len(probabilities) + 1)),
            f"counted on: {table.pairs}",
            f"holds for: threshold {table.threshold:g}, smallest lesion {table.min_lesion_mm3:g} "
            f"mm3{_peak(table.min_peak)}, {count_of(table.flips, 'mirror image')}",
        ]
    )


def _bins(bounds: tuple[float, ...]) -> list[str]:
    """Return the bins with these lower bounds in words: '3 to 10', 'above 10'."""
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(bounds)]
    return [*inner, f"above {bounds[-1]:g}"]


def _peak(least: float) -> str:
    """Return the smallest peak of a lesion in words; '' if there is none."""
    return f", smallest peak {least:g}" if least else ""


def _rows(network: TrainedNetwork) -> list[tuple[str, str]]:
    """Return the properties of a network, each as a label and a text."""
    config, fitted = network.config, network.preprocessing
    model, predict = config.model, config.predict
    parameters = sum(leaf.size for leaf in jax.tree.leaves(network.variables["params"]))
    landmarks = ", ".join(
        f"{percent:g} % {value:.4g}"
        for percent, value in zip(fitted.settings.percentiles, fitted.landmarks, strict=True)
    )
    return [
        ("parameters", f"{parameters:,}"),
        ("widths", ", ".join(map(str, model.widths))),
        ("output maps", f"{model.targets}: {', '.join(model.map_names)}"),
        ("voxels", f"{fitted.settings.spacing_mm:g} mm"),
        ("patches", f"{fitted.settings.patch_size} voxels along each side"),
        ("landmarks", landmarks),
        ("deviation", f"{fitted.deviation:.4g}, largest among the training visits"),
        (
            "prediction",
            f"threshold {predict.threshold:g}, smallest lesion {predict.min_lesion_mm3:g} mm3"
            f"{_peak(predict.min_peak)}, overlap {predict.overlap} voxels"
            + (f", mean of {predict.flips} mirror images" if predict.flips > 1 else ""),
        ),
    ]
