"""Define all fields of the configuration, each with its meaning, unit, range and default.

The defaults are the constants of the paper (Fenneteau et al., MSSEG-2, 2021). If the paper does not
give a value, the description of the field ends with "not from the paper". The paper describes no
augmentation, so none of the defaults in `AugmentationSettings` are from it.

`--help` prints the descriptions, each followed by the range of the field.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from msseg_jax.configuration.section import Section, setting
from msseg_jax.configuration.targets import CHANGES, TargetSet, map_names

Probability = Annotated[float, Field(ge=0, le=1)]
Width = Annotated[int, Field(ge=1, le=4096)]
Percent = Annotated[float, Field(ge=0, le=100)]

# If no control point of a cubic B-spline moves further than this along an axis, in cells of the
# grid, the deformation cannot fold space. The limit is 1 / 2.48 in three dimensions (Choi and Lee,
# "Injectivity conditions of 2D and 3D uniform cubic B-spline functions", Graphical Models 62,
# 2000).
UNFOLDED = 0.4


class NetworkSettings(Section):
    """The layers of the network."""

    widths: tuple[Width, ...] = setting(
        (6, 7, 8, 8), "feature maps at each depth, from full resolution down: two or more numbers, "
        "each 1 to 4096. The default gives the paper's 40,465 parameters; not from the paper",
        min_length=2, max_length=12,
    )  # fmt: skip
    node_convolutions: int = setting(
        2, "3x3x3 convolutions in each node of the U-Net++", ge=1, le=32
    )
    refinement_width: int = setting(
        5, "feature maps of the refinement block; not from the paper", ge=1, le=4096
    )
    refinement_convolutions: int = setting(
        4, "3x3x3 convolutions in the refinement block", ge=1, le=32
    )
    targets: int = setting(
        5,
        "number of output maps: the first ones of config.model.target_set; at most 5 with "
        "'changes'",
        ge=1,
        le=64,
    )
    target_set: TargetSet = setting(
        "raters",
        "what the output maps show. 'raters': new lesions, first the consensus, then one map per "
        "expert. 'changes': new lesions, enlarging ones (the part that grew), vanished or shrunk "
        "ones (the part that went), all lesions at the first visit, and all at the second; of "
        "these, only the new lesions must be known for each patient; not from the paper",
        later=True,
    )
    initial_probability: float = setting(
        0.5,
        "probability of a new lesion that the initial bias of the output layer gives in every "
        "voxel; not from the paper",
        gt=0,
        lt=1,
    )
    dropout_rate: float = setting(
        0.1,
        "share of feature maps that dropout sets to zero during training, each as a whole; not "
        "from the paper",
        ge=0,
        lt=1,
    )
    norm_momentum: float = setting(
        0.9,
        "share of batch norm's running statistics that is kept at each step; not from the paper",
        gt=0,
        lt=1,
    )
    norm_epsilon: float = setting(
        1e-5, "constant that batch norm adds to variances; not from the paper", gt=0
    )

    @property
    def map_names(self) -> tuple[str, ...]:
        """The names of the output maps, which say what each one shows."""
        return map_names(self.targets, self.target_set)

    @property
    def predicted_maps(self) -> int:
        """The number of output maps that a prediction uses: no map of a single expert."""
        return self.targets if self.target_set == "changes" else 1

    @property
    def side_multiple(self) -> int:
        """The side of a patch must be a multiple of this: each depth but the first halves it."""
        return 2 ** (len(self.widths) - 1)


class PreprocessingSettings(Section):
    """The settings of preprocessing. It also depends on the landmarks fitted in training."""

    spacing_mm: float = setting(
        0.8, "isotropic voxel spacing to which all scans are resampled, mm", gt=0
    )
    percentiles: tuple[Percent, ...] = setting(
        (1.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0),
        "percentiles that are the landmarks of Nyul's intensity normalisation: two or more "
        "numbers from 0 to 100, ascending; not from the paper", min_length=2, max_length=101,
    )  # fmt: skip
    patch_size: int = setting(
        56,
        "side of a patch, voxels. It must be a multiple of 8 with the default config.model.widths, "
        "and no larger than any side of a brain's bounding box",
        ge=1,
        le=1024,
    )

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if any(a >= b for a, b in zip(self.percentiles, self.percentiles[1:], strict=False)):
            raise ValueError(f"percentiles is {self.percentiles}; expected ascending numbers")
        return self


class DataSettings(PreprocessingSettings):
    """The patients, which of them are held out, and the patches that are cut."""

    root: str = setting(
        "data/msseg2",
        "folder of the patients, with one folder per patient, in the MSSEG-2 layout",
        free=True,
        own=True,
    )
    phantom_patients: int = setting(
        0,
        "number of phantoms (synthetic patients) to make in the work folder, and to use in place "
        "of config.data.root; 0: use config.data.root",
        ge=0,
    )
    phantom_spacing_mm: float | None = setting(
        None,
        "isotropic voxel spacing of the phantoms, mm; None: each phantom has its own spacing",
        ge=0.5,
        le=4,
    )
    validation_patients: int = setting(
        0,
        "number of patients that are held out of the training; 0: none, as in the paper, which "
        "trains on all 40",
        ge=0,
    )
    folds: int = setting(
        0,
        "number of folds of a cross-validation, at least 2, in place of "
        "config.data.validation_patients; 0: no cross-validation",
        ge=0,
    )
    fold: int = setting(
        0,
        "number of the fold that is held out, from 0 to config.data.folds - 1; leave it at 0 with "
        "--mode=cross_validate, which holds out each fold in turn",
    )
    lesion_patch_probability: float = setting(
        0.8,
        "share of patches that are placed on a new lesion, in patients with new lesions; all other "
        "patches are centred on a random voxel of the brain. With config.model.target_set "
        "'changes', half of these patches are placed on an enlarging or a vanished lesion instead, "
        "and all of them if the patient has no new one",
        ge=0,
        le=1,
    )
    patches_per_patient: int = setting(872, "patches from each patient per epoch", ge=1)
    cache_dir: str | None = setting(
        None, "folder for the cache of preprocessed patients; None: `cache` in the work folder",
        free=True, own=True,
    )  # fmt: skip
    workers: int = setting(2, "number of threads that cut patches", ge=1, free=True, own=True)
    device_resident: bool = setting(
        False,
        "keep all volumes in the memory of the device (GPU), and cut patches there; this excludes "
        "augmentation",
        free=True,
    )

    @property
    def preprocessing(self) -> PreprocessingSettings:
        """The fields on which preprocessing depends."""
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
                f"fold is {self.fold}; expected the number of a fold, from 0 to {self.folds - 1}"
            )
        if self.folds and self.validation_patients:
            problems.append(
                f"validation_patients is {self.validation_patients}; expected 0, because "
                "config.data.folds is set, and then a fold is held out"
            )
        if not self.folds and self.fold:
            problems.append(f"fold is {self.fold}; expected 0, because config.data.folds is 0")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class AugmentationSettings(Section):
    """The augmentation of training patches. The paper describes none.

    Spatial changes are drawn once per patch, because they are the same in both visits. Only the
    misregistration moves one visit relative to the other. Changes of intensity are drawn for each
    visit. Lengths are in voxels, and intensities in standard deviations of the brain.
    """

    enabled: bool = setting(False, "augment the training patches")
    # Scans are stored in different orientations, so any array axis may be left to right, and the
    # network has no information about that. Therefore all axes are flipped.
    flip_probability: tuple[Probability, Probability, Probability] = setting(
        (0.5, 0.5, 0.5),
        "probability that a patch is flipped, for each of the three array axes (0 to 1 each)",
    )
    affine_probability: Probability = setting(
        0.5, "probability that a patch is rotated and scaled about its centre"
    )
    rotation_degrees: float = setting(
        10.0, "largest angle of the rotation, degrees, about an axis in any direction", ge=0, le=180
    )
    scale: Probability = setting(
        0.1, "largest scaling of each axis: 0.1 gives factors from 1 / 1.1 to 1.1"
    )
    elastic_probability: Probability = setting(
        0.3, "probability that a patch is deformed elastically"
    )
    elastic_cells: int = setting(
        4, "cells of the elastic deformation's control grid along each side of a patch", ge=1
    )
    # A spline is a weighted mean of its control values. Therefore the largest displacement in a
    # patch along an axis is usually about 0.6 of this limit.
    elastic: float = setting(
        0.2, "largest displacement of a control point of the elastic deformation along each axis, "
        "in cells of the control grid; above 0.4 the deformation could fold", ge=0, le=UNFOLDED,
    )  # fmt: skip
    misregistration_probability: Probability = setting(
        0.5, "probability that time01 of a patch is moved relative to time02"
    )
    misregistration_voxels: float = setting(
        1.0, "largest shift of time01 relative to time02, voxels", ge=0
    )
    misregistration_degrees: float = setting(
        1.0,
        "largest rotation of time01 relative to time02 about the patch's centre, degrees",
        ge=0,
        le=180,
    )
    zero_signal: float = setting(
        -4.0,
        "normalised intensity that stands for no signal, in standard deviations of the brain; it "
        "should lie below the darkest fluid",
        ge=-100,
        lt=0,
    )
    gamma_probability: Probability = setting(
        0.3, "probability that the contrast of a visit is changed (its signal is raised to a power)"
    )
    gamma: float = setting(
        0.2, "largest change of contrast: 0.2 gives exponents from 1 / 1.2 to 1.2", ge=0, le=10
    )
    gain_probability: Probability = setting(
        0.3, "probability that the signal of a visit is multiplied by a constant factor"
    )
    gain: float = setting(
        0.1, "largest change of brightness: 0.1 gives factors from 1 / 1.1 to 1.1", ge=0, le=10
    )
    bias_probability: Probability = setting(
        0.3, "probability that the signal of a visit is multiplied by a smooth bias field"
    )
    bias_cells: int = setting(
        1, "cells of the bias field's control grid along each side of a patch", ge=1
    )
    # A spline is a weighted mean of its control values. Therefore the largest factor in a patch is
    # usually about the cube root of 1.3, with the default.
    bias: float = setting(
        0.3,
        "largest factor at a control point of the bias field: 0.3 gives factors from 1 / 1.3 to "
        "1.3",
        ge=0,
        le=10,
    )
    blur_probability: Probability = setting(
        0.2, "probability that a visit is blurred with a Gaussian"
    )
    blur_voxels: float = setting(
        1.0, "largest standard deviation of the Gaussian blur, voxels", ge=0
    )
    slice_probability: Probability = setting(
        0.2,
        "probability that the slices of a visit are made thicker; both visits share the slice axis",
    )
    slice_voxels: float = setting(4.0, "largest slice thickness, voxels", ge=1)
    noise_probability: Probability = setting(
        0.3, "probability that Gaussian noise is added to a visit"
    )
    noise: float = setting(
        0.15,
        "largest standard deviation of the added noise, in standard deviations of the brain",
        ge=0,
        le=10,
    )

    def problems_with(self, patch_size: int) -> list[str]:
        """Return a message for each length that exceeds the side of a patch, in voxels."""
        names = ("misregistration_voxels", "blur_voxels", "slice_voxels", "elastic_cells",
                 "bias_cells")  # fmt: skip
        return [
            f"augmentation.{name} is {getattr(self, name)}; expected at most {patch_size}, "
            "the side of a patch (config.data.patch_size)"
            for name in names
            if getattr(self, name) > patch_size
        ]


class TrainSettings(Section):
    """The optimisation, and how often a run is logged, validated and stored."""

    compute_dtype: Literal["float32", "bfloat16"] = setting(
        "float32",
        "type of the feature maps: 'float32', or 'bfloat16', which is meant for GPUs, and for CPUs "
        "that multiply it (AVX512-BF16)",
    )
    loss: Literal["all_targets", "each_target"] = setting(
        "all_targets",
        "'all_targets': one Dice ratio over all targets, as in the paper. 'each_target': the mean "
        "of one ratio per target, so that a target with few voxels counts as much as one with many",
        later=True,
    )
    decoder_weight: float = setting(
        0.0,
        "weight of a second loss, which compares the decoder maps of the segmentation block with "
        "all lesions of each visit; above 0 only with config.model.target_set 'changes'; not from "
        "the paper",
        ge=0,
        later=True,
    )
    batch_size: int = setting(40, "pairs of patches per step, summed over all devices", ge=1)
    epochs: int = setting(
        40,
        "number of epochs; in an epoch each patient gives config.data.patches_per_patient patches",
        ge=1,
        free=True,
    )
    max_steps: int = setting(
        0, "largest number of steps; 0: no limit, train for all epochs", ge=0, free=True
    )
    learning_rate: float = setting(0.004, "learning rate of Adam in the first epoch", gt=0)
    learning_rate_decay: float = setting(
        0.9, "factor by which the learning rate is multiplied after each epoch", gt=0, le=1
    )
    log_every_steps: int = setting(20, "steps between two lines of the log", ge=1, free=True)
    validate_every_steps: int = setting(
        872,
        "steps between two validations; the default is one epoch with the paper's 40 patients",
        ge=1,
    )
    checkpoint_every_steps: int = setting(436, "steps between two checkpoints", ge=1, free=True)


class PredictSettings(Section):
    """The settings for applying a network, and for turning its probabilities into a mask."""

    overlap: int = setting(
        14, "overlap of neighbouring tiles, voxels; it must be less than the patch size", ge=0
    )
    threshold: float = setting(
        0.6, "probability above which a voxel belongs to a new lesion", ge=0, lt=1
    )
    min_lesion_mm3: float = setting(
        0.0,
        "smallest lesion that is kept, mm3; a lesion is a connected component of voxels that share "
        "a face; 0: keep all",
        ge=0,
    )
    min_peak: float = setting(
        0.0,
        "probability that a lesion has in at least one of its voxels, or it is dropped; 0: keep "
        "all. The validation during a training uses 0; not from the paper",
        ge=0, lt=1, later=True,
    )  # fmt: skip
    batch_size: int = setting(
        4, "tiles of the patch size per call of the network; fewer if the tiles are larger", ge=1
    )
    flips: Literal[1, 2, 4, 8] = setting(
        1,
        "mirror images of each tile over which the probabilities are averaged: 1, only the tile "
        "itself; 2, left-right; 4, also front-back; 8, also up-down. The validation during a "
        "training uses 1; not from the paper",
        later=True,
    )


class TrainedSettings(Section):
    """The settings on which a trained network depends."""

    model: NetworkSettings = NetworkSettings()
    data: PreprocessingSettings = PreprocessingSettings()
    predict: PredictSettings = PredictSettings()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if problems := self.problems():
            raise ValueError("\n".join(problems))
        return self

    def problems(self) -> list[str]:
        """Return a message for each contradiction between fields; it begins with a field's name."""
        problems = [
            f"data.patch_size: {problem}"
            for problem in patch_problems([self.data.patch_size], self.model.side_multiple)
        ]
        if self.predict.overlap >= self.data.patch_size:
            problems.append(
                f"predict.overlap is {self.predict.overlap}; expected 0 to "
                f"{self.data.patch_size - 1} voxels, less than config.data.patch_size"
            )
        if self.model.target_set == "changes" and self.model.targets > len(CHANGES):
            problems.append(
                f"model.targets is {self.model.targets}; expected 1 to {len(CHANGES)}, because "
                "config.model.target_set is 'changes'"
            )
        return problems


class Configuration(TrainedSettings):
    """The whole configuration of a run."""

    seed: int = setting(
        0,
        "seed of all random numbers: initial weights, dropout, patches, augmentation, the split of "
        "the patients, and phantoms",
        ge=0,
        le=2**32 - 1,  # JAX uses only 32 bits, so larger seeds would repeat the smaller ones
    )
    init: str = setting(
        "", "trained network from which a new run starts: 'weights' (the released weights), a "
        "model file, or the folder of a run or of a cross-validation; '': random weights",
    )  # fmt: skip
    init_network: int = setting(
        0, "number of the network to use, from 0, if config.init has several networks", ge=0
    )
    data: DataSettings = DataSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    train: TrainSettings = TrainSettings()

    def problems(self) -> list[str]:
        """Return a message for each contradiction between fields; it begins with a field's name."""
        problems = super().problems() + self.augmentation.problems_with(self.data.patch_size)
        if self.init_network and not self.init:
            problems.append(
                f"init_network is {self.init_network}; expected 0, because config.init is empty"
            )
        if self.augmentation.enabled and self.data.device_resident:
            problems.append(
                "augmentation.enabled is True; expected False with config.data.device_resident, "
                "because patches that are cut on the device are not augmented"
            )
        if self.train.decoder_weight and self.model.target_set != "changes":
            problems.append(
                f"train.decoder_weight is {self.train.decoder_weight:g}; expected 0, because "
                f"config.model.target_set is {self.model.target_set!r}, which has no map of all "
                "lesions. Or use config.model.target_set='changes'"
            )
        if self.data.phantom_patients and self.model.target_set == "changes":
            problems.append(
                f"data.phantom_patients is {self.data.phantom_patients}; expected 0, because "
                "config.model.target_set is 'changes', and phantoms have only maps of raters"
            )
        return problems

    @property
    def trained(self) -> TrainedSettings:
        """The fields on which the trained network depends."""
        return TrainedSettings(model=self.model, data=self.data.preprocessing, predict=self.predict)

    def with_data(self, **values: object) -> Self:
        """Return a copy of this configuration with other values in its section `data`."""
        return self.model_copy(update={"data": self.data.model_copy(update=values)})


def patch_problems(sides: Sequence[int], multiple: int) -> list[str]:
    """Return a message for each side, in voxels, that is not a positive multiple of `multiple`."""
    return [
        f"patch side {side} is not a multiple of {multiple}, but this network halves a patch "
        f"{multiple.bit_length() - 1} times; the nearest possible sides are "
        f"{max(side // multiple, 1) * multiple} and {(side // multiple + 1) * multiple}"
        for side in sides
        if side < multiple or side % multiple
    ]
