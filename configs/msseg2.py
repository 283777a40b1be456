"""Fenneteau et al., "Siamese convolutional neural network for new multiple sclerosis lesion
segmentation", MSSEG-2 challenge at MICCAI 2021 (hal-03359032): the paper, every constant.

    python launch.py --config=configs/msseg2.py --config.data.root=/path/to/MSSEG2

Hardware: 4 GPUs in the paper. Time and scores with this code: not measured (the challenge's data
are needed). Where the paper is silent the comment says "ours".
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # of initial weights, dropout, patches and the split
    # A trained network to begin with: 'weights' (the released ones), a model file, or a run's
    # folder. '': random weights. It is read when a run is new, and not again.
    config.init = ""
    config.init_network = 0  # which of several networks there, from 0

    config.model = ConfigDict()
    config.model.widths = (6, 7, 8, 8)  # feature maps by depth; ours, meets the paper's 40,465
    config.model.node_convolutions = 2  # 3x3x3 convolutions per U-Net++ node
    config.model.refinement_width = 5  # feature maps; ours, as the widths
    config.model.refinement_convolutions = 4
    config.model.targets = 5  # output maps: the consensus, then the experts
    config.model.initial_probability = (
        0.5  # of new lesion, untrained: the output's first bias; ours
    )
    config.model.dropout_rate = 0.1  # share of whole feature maps; ours
    config.model.norm_momentum = 0.9  # decay per step of batch norm's running statistics; ours
    config.model.norm_epsilon = 1e-5  # ours

    config.data = ConfigDict()
    config.data.root = "data/msseg2"  # folder with one folder per patient, MSSEG-2 layout
    config.data.phantom_patients = 0  # > 0: make that many phantoms in the work folder and use them
    config.data.phantom_spacing_mm = config_dict.placeholder(float)  # None: each its own voxel size
    config.data.validation_patients = 0  # held out of training; the paper trains on all 40
    config.data.folds = 0  # of a cross-validation, in place of validation_patients; 0: none
    config.data.fold = 0  # the one of them that is held out, from 0; --mode=cross_validate: each
    config.data.spacing_mm = 0.8  # isotropic voxel side that the network sees
    config.data.percentiles = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)  # Nyul landmarks; ours
    config.data.patch_size = 56  # voxels along each side
    config.data.lesion_patch_probability = 0.8  # patches with new lesion, of patients that have any
    config.data.patches_per_patient = 872  # per epoch
    config.data.cache_dir = config_dict.placeholder(
        str
    )  # None: the folder `cache` in the work folder
    config.data.workers = 2  # threads that cut patches
    config.data.device_resident = False  # hold all volumes in device memory, and cut there

    # What a patch is made to differ by; the paper says nothing of it. All ours.
    config.augmentation = ConfigDict()
    config.augmentation.enabled = False
    # By array axis. Which of them is left to right depends on how a scan was stored, and the
    # network is not told: so all.
    config.augmentation.flip_probability = (0.5, 0.5, 0.5)
    config.augmentation.affine_probability = 0.5  # about the centre of the patch
    config.augmentation.rotation_degrees = 10.0  # at most, about any direction
    config.augmentation.scale = 0.1  # of each axis at most: factors from 1 / 1.1 to 1.1
    config.augmentation.elastic_probability = 0.3
    config.augmentation.elastic_cells = 4  # of the coarse grid, along a patch's side
    # Limit of the grid's control values, in cells. Their spline averages them: the largest move of
    # a patch, along an axis, is mostly about 0.6 of it.
    config.augmentation.elastic = 0.2
    config.augmentation.misregistration_probability = 0.5  # of time01 on time02
    config.augmentation.misregistration_voxels = 1.0  # at most
    config.augmentation.misregistration_degrees = 1.0  # at most, about the patch's centre
    # From here on for each visit by itself. Intensities in standard deviations of the brain.
    config.augmentation.zero_signal = -4.0  # where a scan is black: below its darkest fluid
    config.augmentation.gamma_probability = 0.3
    config.augmentation.gamma = 0.2  # exponents from 1 / 1.2 to 1.2
    config.augmentation.gain_probability = 0.3
    config.augmentation.gain = 0.1  # factors from 1 / 1.1 to 1.1
    config.augmentation.bias_probability = 0.3
    config.augmentation.bias_cells = 1  # of the coarse grid, along a patch's side
    # Limit of the grid's control values: factors from 1 / 1.3 to 1.3. Their spline averages them:
    # the largest factor of a patch is mostly about 1.3 to the power of a third.
    config.augmentation.bias = 0.3
    config.augmentation.blur_probability = 0.2
    config.augmentation.blur_voxels = 1.0  # Gaussian standard deviation, at most
    config.augmentation.slice_probability = 0.2  # thicker slices, across an axis the visits share
    config.augmentation.slice_voxels = 4.0  # thickness, from 1 voxel
    config.augmentation.noise_probability = 0.3
    config.augmentation.noise = 0.15  # Gaussian standard deviation, at most

    config.train = ConfigDict()
    config.train.compute_dtype = "float32"  # of feature maps; 'bfloat16' is meant for GPUs
    config.train.batch_size = 40  # patch pairs, over all devices
    config.train.epochs = 40
    config.train.max_steps = 0  # > 0: stop there, whatever the epochs
    config.train.learning_rate = 0.004  # Adam
    config.train.learning_rate_decay = 0.9  # factor after each epoch
    config.train.log_every_steps = 20
    config.train.validate_every_steps = 872  # one epoch of 40 patients
    config.train.checkpoint_every_steps = 436

    config.predict = ConfigDict()
    config.predict.overlap = 14  # voxels shared by neighbouring tiles
    config.predict.threshold = 0.6  # probability above which a voxel is new lesion
    config.predict.min_lesion_mm3 = 0.0  # smaller connected components are dropped; 0: keep all
    config.predict.batch_size = 4  # tiles per call of the network; ours
    return config
