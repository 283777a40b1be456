"""Find new lesions in a pair of visits on one grid."""

import time
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import pandas as pd

from msseg_jax.api.images import Image, as_volume, files_of, path_of
from msseg_jax.configuration.options import Options
from msseg_jax.inference.ensemble import NEEDED, Ensemble
from msseg_jax.inference.lesion_table import lesion_table
from msseg_jax.inference.outputs import Outputs, check_files, check_places
from msseg_jax.inference.prediction import Prediction, predict_pair
from msseg_jax.inference.record import check_record_place
from msseg_jax.inference.results import write_pair
from msseg_jax.models.folds import runs_of
from msseg_jax.models.released import WEIGHTS
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.pair import read_pair
from msseg_jax.volumes.volume import Volume

Model = Ensemble | str | PathLike[str] | None


class Choices(TypedDict, total=False):
    """Options for prediction. Without an option, the model's own value applies."""

    threshold: float  # probability above which a voxel belongs to a new lesion
    min_lesion_mm3: float  # smaller lesions are dropped
    min_peak: float  # probability that a lesion has in at least one voxel, or it is dropped
    overlap: int  # voxels shared by neighbouring tiles
    tile: int  # largest side of a tile, voxels
    batch_size: int  # tiles per call of the network
    flips: int  # mirror images over which the probabilities are averaged: 1, 2, 4 or 8


@dataclass(frozen=True, eq=False, repr=False)
class Findings:
    """The new lesions of a pair. `print(findings)` gives their number and volume.

    It holds the networks and the images, so it cannot be pickled. Use `save`, or its arrays.
    """

    prediction: Prediction
    inputs: tuple[Path, ...]  # files that `save` must not replace
    prepared: Path | None = None  # the folder of a prepared pair, in which nothing is saved
    seconds: float = 0.0  # duration of the prediction

    @property
    def mask(self) -> np.ndarray:
        """Mask of new lesions, (D, H, W) uint8 with the values 0 and 1."""
        return self.prediction.delivered.mask

    @property
    def probability(self) -> np.ndarray:
        """Probability of new lesion, (D, H, W) float32, 0 outside the brain."""
        return self.prediction.delivered.probability

    @property
    def uncertainty(self) -> np.ndarray:
        """Standard deviation of the probability over the networks, (D, H, W) float32.

        It is 0 everywhere if the model has only one network.
        """
        return self.prediction.delivered.disagreement

    @property
    def changes(self) -> np.ndarray | None:
        """Label map of the changes, (D, H, W) uint8: 1 new, 2 enlarging, 3 vanished or shrunk.

        It is None if the model does not give it. What `mask` marks is 1.
        """
        return self.prediction.delivered.changes

    @property
    def lesions01(self) -> np.ndarray | None:
        """Mask of all lesions at the first visit, (D, H, W) uint8 with the values 0 and 1.

        It is None if the model does not give it.
        """
        return self.prediction.delivered.lesions01

    @property
    def lesions02(self) -> np.ndarray | None:
        """Mask of all lesions at the second visit, in the same way."""
        return self.prediction.delivered.lesions02

    @property
    def affine(self) -> np.ndarray:
        """Affine of these arrays, (4, 4), from voxel indices to scanner mm (RAS)."""
        return self.prediction.delivered.like.affine

    @property
    def lesions(self) -> pd.DataFrame:
        """Table with one row per lesion: the new ones first, the largest first.

        If the model gives `changes`, the enlarging and the vanished lesions follow. The columns are

        - `lesion`: number from 1, in each class;
        - `class`: 'new', 'enlarging' or 'vanished or shrunk';
        - `label`: the value of the lesion in the numbered mask that `save` writes;
        - `volume_mm3`: of the new lesion, or of the part that grew or went;
        - `x_mm`, `y_mm`, `z_mm`: centre in scanner mm (RAS);
        - `slice`: the slice with most of the lesion: its number in the DICOM series, or else its
          place along the last axis, from 1;
        - `side`: of the patient, 'left', 'right' or 'middle' (less than 5 mm from the middle);
        - `region`, `caution`: the region of the brain, and why lesions there are often false; ''
          unless the pair was prepared from scans;
        - `mean_probability`: over the voxels of the lesion;
        - `right`, `of`: of so many marked lesions of this size and probability, so many were right
          in scans never used for training. Missing (`pd.NA`) if the model file has no reliability
          table for these options, if such lesions were too few, and for other classes than 'new';
        - `volume01_mm3`, `volume02_mm3`, `change_mm3`: volume of the lesions in `lesions01` and in
          `lesions02` that share a voxel with this one, and their difference. NaN if the model does
          not give them.
        """
        return lesion_table(self.prediction)

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt the result, such as visits that are not aligned."""
        return self.prediction.warnings

    def save(
        self,
        mask: str | PathLike[str],
        *,
        probability: str | PathLike[str] | None = None,
        uncertainty: str | PathLike[str] | None = None,
        report: str | PathLike[str] | None = None,
        changes: str | PathLike[str] | None = None,
        lesions01: str | PathLike[str] | None = None,
        lesions02: str | PathLike[str] | None = None,
    ) -> None:
        """Write the mask and, if a name is given, the maps and the report.

        Next to the mask NAME.nii.gz, NAME_lesions.csv (the table `lesions`), NAME_lesions.nii.gz
        (the numbered mask) and NAME.json (a record of how they were made) are written, too.

        Args:
          mask, probability, uncertainty, changes, lesions01, lesions02: NIfTI files (.nii.gz or
            .nii).
          report: an HTML file.

        Raises:
          InputError: a file cannot be written or is an input, two have the same name,
            `uncertainty` is given and the model has only one network, or the model does not give
            one of the last three. Nothing is written then.
        """
        if uncertainty is not None and len(self.prediction.ensemble.members) == 1:
            raise InputError(
                "uncertainty cannot be saved, because the model has only one network. Expected "
                "several networks, which may disagree."
            )
        given = {
            "mask": mask, "probability": probability, "report": report, "uncertainty": uncertainty,
            "changes": changes, "lesions01": lesions01, "lesions02": lesions02,
        }  # fmt: skip
        paths = {kind: Path(path) for kind, path in given.items() if path is not None}
        outputs = Outputs(**paths).with_tables()
        for kind in NEEDED.keys() & outputs.by_kind.keys():
            if problem := self.prediction.ensemble.problem_with(kind):
                raise InputError(f"{kind} cannot be saved: {problem}")
        places = [path.resolve() for path in outputs.paths]
        if len(set(places)) < len(places):
            raise InputError(
                f"two of the files to save are the same: {', '.join(map(str, places))}. Expected "
                "a different name for each."
            )
        check_places(outputs, self.prepared)
        check_files(outputs, self.inputs, self.prepared)
        check_record_place(outputs)
        write_pair(self.prediction, outputs, self.seconds)

    def __str__(self) -> str:
        return str(self.prediction.delivered)

    def __repr__(self) -> str:
        return f"<Findings: {self}>"


def load_model(*models: str | PathLike[str]) -> Ensemble:
    """Load trained networks. Pass the result to `find_new_lesions` to use them for many pairs.

    Args:
      models: model files, folders of runs, or folders of cross-validations. The probabilities of
        all networks are averaged. Without an argument: the released weights.

    Returns:
      The networks, as `find_new_lesions` takes them.

    Raises:
      InputError: a model cannot be read, or is given twice.
      TypeError: a model is not a path.
    """
    for model in models:
        if not isinstance(model, str | PathLike) or not str(model):
            raise TypeError(
                f"a model is {model!r}. Expected a path. Several models are given as "
                "load_model(first, second)."
            )
    return Ensemble(runs_of([Path(model) for model in models or (WEIGHTS,)]))


def find_new_lesions(
    time01: Image,
    time02: Image,
    brain_mask: Image | None = None,
    *,
    affine: np.ndarray | None = None,
    model: Model = None,
    **options: Unpack[Choices],
) -> Findings:
    """Find the lesions that are new at the second of two visits on one grid.

    For scans straight from the scanner, use `prepare_scans` first.

    Args:
      time01: the first visit, as a path, a nibabel image, or an array (D, H, W).
      time02: the second visit, in the same way.
      brain_mask: 1 inside the brain, 0 outside. Without it, voxels that are not zero in either
        visit count as brain.
      affine: (4, 4), voxel indices to scanner mm (RAS). Needed if the visits are arrays.
      model: from `load_model`, or the path of a model. None uses the released weights.
      **options: `threshold`, `min_lesion_mm3`, `min_peak`, `overlap`, `tile`, `batch_size` and
        `flips`, as the flags of `msseg predict`. The defaults are those of the model.

    Returns:
      The new lesions.

    Raises:
      InputError: an image or a model cannot be used. The message lists every problem.
    """
    began_s = time.perf_counter()
    given: dict[str, Image] = {"time01": time01, "time02": time02}
    if brain_mask is not None:
        given["brain_mask"] = brain_mask
    # Files are known by their paths. An image that is not a file gets a name that no file has.
    paths = {
        role: path_of(image) if isinstance(image, str | PathLike) else Path(f"<{role}>")
        for role, image in given.items()
    }
    visits = paths["time01"], paths["time02"]
    title = ", ".join(str(Path(*path.parts[-2:])) for path in visits)
    patient = Patient(title, *visits, paths.get("brain_mask"))
    images = {path: given[role] for role, path in paths.items()}

    def read(path: Path) -> Volume:
        return as_volume(images[path], path.name.strip("<>"), affine)

    pair = read_pair(patient, read)
    ensemble = as_model(model)
    chosen = choose_options(ensemble, options)
    prediction = predict_pair(ensemble, patient, pair, chosen)
    inputs = files_of(time01, time02, brain_mask)
    return Findings(prediction, inputs, seconds=time.perf_counter() - began_s)


def choose_options(ensemble: Ensemble, given: Choices) -> Options:
    """Return the options of a model, with those of the caller in place of the model's own.

    Raises:
      TypeError: there is no such option.
      InputError: a value is not valid.
    """
    if unknown := given.keys() - Choices.__annotations__.keys():
        names = ", ".join(Choices.__annotations__)
        raise TypeError(f"{sorted(unknown)[0]!r} is not an option. Expected one of {names}.")
    # Plain numbers, because NumPy's cannot be checked as JSON.
    plain = {name: np.asarray(value).tolist() for name, value in given.items()}
    return ensemble.options(**plain)


def as_model(model: Model) -> Ensemble:
    """Return the networks that `model` stands for; None stands for the released weights."""
    if model is None:
        return _released()
    return model if isinstance(model, Ensemble) else load_model(model)


@cache  # loaded and compiled once per process
def _released() -> Ensemble:
    return load_model()
