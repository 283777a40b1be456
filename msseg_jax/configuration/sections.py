"""Every setting of a training and of a prediction: name, meaning, unit, range and default.

The defaults are the constants of the paper (Fenneteau et al., MSSEG-2, 2021). Where the paper says
nothing, the text says "ours".
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from msseg_jax.configuration.section import Section, setting

Probability = Annotated[float, Field(ge=0, le=1)]
Width = Annotated[int, Field(ge=1)]
Percent = Annotated[float, Field(ge=0, le=100)]

# How far the control points of a cubic B-spline may move along each axis, in cells of their grid,
# before it may fold space: 1 / 2.48 in three dimensions (Choi and Lee, "Injectivity conditions of
# 2D and 3D uniform cubic B-spline functions", Graphical Models 62, 2000).
UNFOLDED = 0.4


class NetworkSettings(Section):
    """The layers of the network."""

    widths: tuple[Width, ...] = setting(
        (6, 7, 8, 8), "feature maps by depth; ours, meets the paper's 40,465 parameters",
        min_length=2,
    )  # fmt: skip
    node_convolutions: int = setting(2, "3x3x3 convolutions per U-Net++ node", ge=1)
    refinement_width: int = setting(5, "feature maps of the refinement block; ours", ge=1)
    refinement_convolutions: int = setting(4, "3x3x3 convolutions of the refinement block", ge=1)
    targets: int = setting(5, "output maps: the consensus, then the experts", ge=1)
    initial_probability: float = setting(
        0.5, "of new lesion in the untrained network: the output's first bias; ours", gt=0, lt=1
    )
    dropout_rate: float = setting(0.1, "share of whole feature maps; ours", ge=0, lt=1)
    norm_momentum: float = setting(
        0.9, "decay per step of batch norm's running statistics; ours", gt=0, lt=1
    )
    norm_epsilon: float = setting(1e-5, "added to batch norm's variances; ours", gt=0)

    @property
    def side_multiple(self) -> int:
        """Voxels of which a patch's side must be a multiple: it is halved once per depth."""
        return 2 ** (len(self.widths) - 1)


class PreprocessingSettings(Section):
    """What the preprocessing of a pair depends on, beside the fitted landmarks."""

    spacing_mm: float = setting(0.8, "isotropic voxel side that the network sees, mm", gt=0)
    percentiles: tuple[Percent, ...] = setting(
        (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0),
        "percentiles of Nyul's landmarks, ascending; ours", min_length=2,
    )  # fmt: skip
    patch_size: int = setting(56, "side of a patch, voxels; the brain must hold one", ge=1)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if any(a >= b for a, b in zip(self.percentiles, self.percentiles[1:], strict=False)):
            raise ValueError(f"percentiles is {self.percentiles}; expected ascending numbers")
        return self


class DataSettings(PreprocessingSettings):
    """The patients, who of them is held out, and which patches are cut."""

    root: str = setting(
        "data/msseg2", "folder with one folder per patient, MSSEG-2 layout", free=True, own=True
    )
    phantom_patients: int = setting(
        0, "more than 0: make that many phantoms in the work folder and use them", ge=0
    )
    phantom_spacing_mm: float | None = setting(
        None, "voxel side of the phantoms, mm; None: each has its own", ge=0.5, le=4
    )
    validation_patients: int = setting(
        0, "patients held out of the training; the paper trains on all 40", ge=0
    )
    folds: int = setting(
        0, "folds of a cross-validation, in place of validation_patients; 0: none", ge=0
    )
    fold: int = setting(0, "the fold that is held out, from 0; --mode=cross_validate: each")
    lesion_patch_probability: float = setting(
        0.8, "share of patches with a new lesion, of patients that have any", ge=0, le=1
    )
    patches_per_patient: int = setting(872, "patches per epoch", ge=1)
    cache_dir: str | None = setting(
        None, "folder of preprocessed patients; None: `cache` in the work folder", free=True,
        own=True,
    )  # fmt: skip
    workers: int = setting(2, "threads that cut patches", ge=1, free=True, own=True)
    device_resident: bool = setting(
        False, "hold all volumes in device memory, and cut patches there", free=True
    )

    @property
    def preprocessing(self) -> PreprocessingSettings:
        """The part that preprocessing depends on."""
        return PreprocessingSettings(
            spacing_mm=self.spacing_mm, percentiles=self.percentiles, patch_size=self.patch_size
        )

    @model_validator(mode="after")
    def _check_folds(self) -> Self:
        problems = []
        if self.folds == 1:
            problems.append("folds is 1; expected 0 (no cross-validation), or 2 or more")
        if self.folds and not 0 <= self.fold < self.folds:
            problems.append(
                f"fold is {self.fold}; expected 0 to {self.folds - 1}, one of the folds"
            )
        if self.folds and self.validation_patients:
            problems.append(
                f"validation_patients is {self.validation_patients}; expected 0 with "
                "config.data.folds, because a fold is held out"
            )
        if not self.folds and self.fold:
            problems.append(f"fold is {self.fold}; expected 0 without config.data.folds")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class AugmentationSettings(Section):
    """How patches are made to differ. The paper says nothing of it: all ours.

    A probability is that of a patch for what the visits share, and of each visit for the rest.
    Lengths are in voxels, intensities in standard deviations of the brain.
    """

    enabled: bool = setting(False, "whether patches are augmented")
    # Which array axis is left to right depends on how a scan was stored, and the network is not
    # told. Therefore all axes are flipped.
    flip_probability: tuple[Probability, Probability, Probability] = setting(
        (0.5, 0.5, 0.5), "of a flip, by array axis"
    )
    affine_probability: Probability = setting(0.5, "of a rotation and scaling about the centre")
    rotation_degrees: float = setting(10.0, "largest angle, about any direction", ge=0, le=180)
    scale: Probability = setting(0.1, "of each axis: factors from 1 / 1.1 to 1.1")
    elastic_probability: Probability = setting(0.3, "of an elastic deformation")
    elastic_cells: int = setting(4, "cells of the coarse grid along a patch's side", ge=1)
    # The spline averages the control values: the largest move of a patch along an axis is mostly
    # about 0.6 of the limit.
    elastic: float = setting(
        0.2, "limit of the grid's control values, in cells; more may fold a patch", ge=0,
        le=UNFOLDED,
    )  # fmt: skip
    misregistration_probability: Probability = setting(0.5, "of time01 moved on time02")
    misregistration_voxels: float = setting(1.0, "largest shift", ge=0)
    misregistration_degrees: float = setting(
        1.0, "largest angle, about the patch's centre", ge=0, le=180
    )
    zero_signal: float = setting(
        -4.0, "intensity where a scan is black: below its darkest fluid", ge=-100, lt=0
    )
    gamma_probability: Probability = setting(0.3, "of a change of contrast")
    gamma: float = setting(0.2, "exponents from 1 / 1.2 to 1.2", ge=0, le=10)
    gain_probability: Probability = setting(0.3, "of a change of brightness")
    gain: float = setting(0.1, "factors from 1 / 1.1 to 1.1", ge=0, le=10)
    bias_probability: Probability = setting(0.3, "of a smooth bias field")
    bias_cells: int = setting(1, "cells of the coarse grid along a patch's side", ge=1)
    # The spline averages the control values: the largest factor of a patch is mostly about 1.3 to
    # the power of a third.
    bias: float = setting(
        0.3, "limit of the grid's control values: factors from 1 / 1.3 to 1.3", ge=0, le=10
    )
    blur_probability: Probability = setting(0.2, "of a blur")
    blur_voxels: float = setting(1.0, "largest standard deviation of the Gaussian", ge=0)
    slice_probability: Probability = setting(
        0.2, "of thicker slices, across an axis that the visits share"
    )
    slice_voxels: float = setting(4.0, "largest thickness", ge=1)
    noise_probability: Probability = setting(0.3, "of noise")
    noise: float = setting(0.15, "largest standard deviation of the Gaussian", ge=0, le=10)

    def problems_with(self, patch_size: int) -> list[str]:
        """Return what does not fit into a patch of this side (voxels)."""
        names = ("misregistration_voxels", "blur_voxels", "slice_voxels", "elastic_cells",
                 "bias_cells")  # fmt: skip
        return [
            f"augmentation.{name} is {getattr(self, name)}; expected at most {patch_size}, "
            "config.data.patch_size"
            for name in names
            if getattr(self, name) > patch_size
        ]


class TrainSettings(Section):
    """The optimisation, and when the run is logged, scored and stored."""

    compute_dtype: Literal["float32", "bfloat16"] = setting(
        "float32", "type of feature maps; 'bfloat16' is meant for GPUs"
    )
    batch_size: int = setting(40, "patch pairs per step, over all devices", ge=1)
    epochs: int = setting(40, "passes over all patients", ge=1, free=True)
    max_steps: int = setting(0, "more than 0: stop there, whatever the epochs", ge=0, free=True)
    learning_rate: float = setting(0.004, "of Adam", gt=0)
    learning_rate_decay: float = setting(0.9, "factor after each epoch", gt=0, le=1)
    log_every_steps: int = setting(20, "steps per line of the log", ge=1, free=True)
    validate_every_steps: int = setting(
        872, "steps between validations; the default is one epoch of 40 patients", ge=1
    )
    checkpoint_every_steps: int = setting(436, "steps between checkpoints", ge=1, free=True)


class PredictSettings(Section):
    """How probabilities become a mask."""

    overlap: int = setting(14, "voxels that neighbouring tiles share", ge=0)
    threshold: float = setting(
        0.6, "probability above which a voxel belongs to a new lesion", ge=0, lt=1
    )
    min_lesion_mm3: float = setting(
        0.0, "drop smaller lesions, mm3 (voxels that share a face make a lesion); 0: keep all", ge=0
    )
    batch_size: int = setting(4, "tiles of the patch size per call of the network", ge=1)


class TrainedSettings(Section):
    """What a trained network depends on."""

    model: NetworkSettings = NetworkSettings()
    data: PreprocessingSettings = PreprocessingSettings()
    predict: PredictSettings = PredictSettings()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if problems := self.problems():
            raise ValueError("\n".join(problems))
        return self

    def problems(self) -> list[str]:
        """Return what does not fit together, a line each that begins with the field's name."""
        problems = [
            f"data.patch_size: {problem}"
            for problem in patch_problems([self.data.patch_size], self.model.side_multiple)
        ]
        if self.predict.overlap >= self.data.patch_size:
            problems.append(
                f"predict.overlap is {self.predict.overlap}; expected 0 to "
                f"{self.data.patch_size - 1} voxels, less than config.data.patch_size"
            )
        return problems


class Configuration(TrainedSettings):
    """The whole configuration of a run."""

    seed: int = setting(0, "of initial weights, dropout, patches and the split", ge=0, lt=2**63)
    init: str = setting(
        "", "trained network to begin with: 'weights' (the released ones), a model file, or "
        "the folder of a run or a cross-validation; '': random weights. It is read when a run is "
        "new",
    )  # fmt: skip
    init_network: int = setting(0, "which of several networks there, from 0", ge=0)
    data: DataSettings = DataSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    train: TrainSettings = TrainSettings()

    def problems(self) -> list[str]:
        """Return what does not fit together, a line each that begins with the field's name."""
        problems = super().problems() + self.augmentation.problems_with(self.data.patch_size)
        if self.init_network and not self.init:
            problems.append(f"init_network is {self.init_network}; expected 0 without config.init")
        if self.augmentation.enabled and self.data.device_resident:
            problems.append(
                "augmentation.enabled is True; expected False with config.data.device_resident, "
                "because patches that are cut on the device are not augmented"
            )
        return problems

    @property
    def trained(self) -> TrainedSettings:
        """The part that the trained network depends on."""
        return TrainedSettings(model=self.model, data=self.data.preprocessing, predict=self.predict)

    def with_data(self, **values: object) -> Self:
        """Return this configuration with other values in its section `data`."""
        return self.model_copy(update={"data": self.data.model_copy(update=values)})


def patch_problems(sides: Sequence[int], multiple: int) -> list[str]:
    """Return a sentence for each of `sides`, in voxels, that is no positive multiple."""
    return [
        f"patch side {side} is no multiple of {multiple}, as this network needs because it halves "
        f"a patch {multiple.bit_length() - 1} times; the nearest that fit are "
        f"{max(side // multiple, 1) * multiple} and {(side // multiple + 1) * multiple}"
        for side in sides
        if side < multiple or side % multiple
    ]
