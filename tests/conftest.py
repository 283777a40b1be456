"""Four simulated devices, and a small MSSEG-2 folder for every test that needs one."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

from msseg_jax import native
from msseg_jax.checkpoint import Checkpoints, RunFolder
from msseg_jax.config import save_config, settings_of
from msseg_jax.data import dataset
from msseg_jax.data.preprocess import Preprocessing
from msseg_jax.initial import initial_network
from msseg_jax.model import build_model, initial_variables
from msseg_jax.parallel import AXIS
from msseg_jax.train import check_patients, check_training, create_state, restore_last, train
from msseg_jax.training_data import prepare_data
from msseg_jax.training_log import TrainingLog
from tests import tiny

jax.config.update("jax_num_cpu_devices", 4)  # before anything asks for a device
# A shell that starts the tests in the background has Ctrl-C ignored, by them and what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What one test has compiled serves the next, in whichever process of the session that is. A folder
# of the session's own makes each a cold start: the native convolution is compiled as on a new
# machine, once.
if "MSSEG_JAX_TESTS" not in os.environ:  # else another process of the session has made it
    _session = tempfile.TemporaryDirectory(prefix="msseg_jax_tests_")
    os.environ["MSSEG_JAX_TESTS"] = _session.name
os.environ["XDG_CACHE_HOME"] = os.environ["MSSEG_JAX_TESTS"]
_compiled = f"{os.environ['MSSEG_JAX_TESTS']}/xla"
jax.config.update("jax_compilation_cache_dir", _compiled)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
os.environ.pop(native.SWITCH, None)  # tested as users have it
jax.config.update("jax_numpy_rank_promotion", "raise")

# Where this holds, a native convolution that cannot be had is a fault. Elsewhere users are served
# by the plain form alone, and so that alone is tested.
HAS_NATIVE = native.find_compiler() is not None and jax.default_backend() == "cpu"

# The files of a patient in the MSSEG-2 layout.
PATIENT_FILES = {dataset.TIME01, dataset.TIME02, dataset.CONSENSUS, dataset.BRAIN_MASK} | {
    dataset.EXPERT.format(n) for n in (1, 2, 3, 4)
}
SHAPE = (14, 15, 20)
SPACING_MM = (1.0, 1.0, 0.8)


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)


def save_nifti(path: Path, array: np.ndarray, spacing_mm=SPACING_MM) -> Path:
    """A NIfTI file with an oblique-free affine, in mm."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (-7, 11, 3)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def make_patient(root: Path, name: str, *, lesion: bool, targets: int = 2, seed: int = 0) -> Path:
    """An ellipsoidal brain of textured intensity 100, with a bright new lesion if wanted."""
    generator = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    brain = sum(axis**2 for axis in axes) < 0.95
    texture = generator.normal(100, 10, (2, *SHAPE))
    new = np.zeros(SHAPE, dtype=bool)
    if lesion:
        new[6:9, 7:10, 9:13] = True
        texture[1][new] += 100
    folder = root / name
    folder.mkdir(parents=True)
    visits = (texture * brain).astype(np.float32)
    save_nifti(folder / dataset.TIME01, visits[0])
    save_nifti(folder / dataset.TIME02, visits[1])
    save_nifti(folder / dataset.BRAIN_MASK, brain.astype(np.uint8))
    save_nifti(folder / dataset.CONSENSUS, new.astype(np.uint8))
    for k in range(1, targets):
        save_nifti(folder / dataset.EXPERT.format(k), new.astype(np.uint8))
    return folder


def with_random_output(variables: dict) -> dict:
    """The variables of an untrained network, whose output kernel is zero, with another one."""
    output = variables["params"]["refinement"]["output"]
    random = np.random.default_rng(1).normal(size=output["kernel"].shape)
    output["kernel"] = random.astype(np.float32)
    return variables


def save_run(folder: Path, config: ConfigDict, seed: int = 0, middle: float = 50.0) -> Path:
    """A run's folder with an untrained network, and `middle` as the landmark of the median."""
    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    config = config.copy_and_resolve_references()
    config.data.percentiles = (1, 50, 99)
    save_config(config, run.config_file)
    Preprocessing(settings_of(config), (0.0, middle, 100.0), 5.0).save(run.preprocessing_file)
    variables = with_random_output(initial_variables(build_model(config), seed))
    with Checkpoints(run.checkpoints / "last", keep=1) as checkpoints:
        checkpoints.save(4, variables, {"moments": np.zeros(1)}, {})
    return folder


@pytest.fixture(params=["native", "plain"] if HAS_NATIVE else ["plain"])
def form(request, monkeypatch) -> str:
    """Each form of convolution and batch norm that a CPU has, in its turn."""
    if request.param == "native":
        assert native.available(), native.state()[1]
    monkeypatch.setattr(native, "available", lambda: request.param == "native")
    return request.param


def make_patients(root: Path) -> Path:
    """Four patients, three of them with a new lesion."""
    for k in range(4):
        make_patient(root, f"patient_{k}", lesion=k != 2, seed=k)
    return root


@pytest.fixture
def patients_root(tmp_path) -> Path:
    return make_patients(tmp_path / "patients")


@pytest.fixture
def small_config(patients_root) -> ConfigDict:
    """A configuration that trains in seconds, on patients that are there."""
    config = tiny.get_config()
    config.data.root = str(patients_root)
    return config


@pytest.fixture
def runs(small_config, tmp_path) -> list[Path]:
    """Three untrained runs, with weights, landmarks and voxels of their own."""
    small_config.predict.threshold = 0.3
    one = save_run(tmp_path / "one", small_config, seed=0)
    two = save_run(tmp_path / "two", small_config, seed=1, middle=30.0)
    small_config.data.spacing_mm = 0.9
    return [one, two, save_run(tmp_path / "three", small_config, seed=2)]


@pytest.fixture
def flags(patients_root, tmp_path) -> list[str]:
    """Of predict, for the first patient, but for the models."""
    patient = patients_root / "patient_0"
    return [
        "-t1", str(patient / dataset.TIME01),
        "-t2", str(patient / dataset.TIME02),
        f"--mask={patient / dataset.BRAIN_MASK}",
        "-o", str(tmp_path / "new.nii.gz"),
    ]  # fmt: skip


def models(paths) -> list[str]:
    """Flags that name them."""
    return [f"--model={path}" for path in paths]


class Launch:
    """launch.py as a user types it, with `tests/tiny.py` and a working folder."""

    def __init__(self, root: Path, devices: int = 1):
        self._started: list[subprocess.Popen] = []
        self._command = [
            sys.executable, "launch.py", "--config=tests/tiny.py", f"--config.data.root={root}",
        ]  # fmt: skip
        self._environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
        self._environment.pop("PYTHONUNBUFFERED", None)  # which users do not have
        # What one process has compiled serves the next.
        self._environment["JAX_COMPILATION_CACHE_DIR"] = _compiled
        self._environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    def start(self, workdir: Path, *flags: str) -> subprocess.Popen:
        """Output and errors come together, as text."""
        process = subprocess.Popen(
            [*self._command, f"--workdir={workdir}", *flags], cwd=Path(__file__).parents[1],
            env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def run(self, workdir: Path, *flags: str) -> tuple[int, str]:
        """(exit status, output) when it has ended."""
        process = self.start(workdir, *flags)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Nothing that a failing test leaves behind goes on."""
        for process in self._started:
            process.kill()
            process.wait()
            process.stdout.close()


def train_run(config: ConfigDict, run: RunFolder) -> None:
    """What `run_experiment` does of it, up to the end of the training."""
    check_training(config, jax.devices())
    initial = initial_network(config, run)
    check_patients(config)
    run.create_or_continue(config)
    train(config, run, prepare_data(config, run, initial), initial)


def newest_step(workdir: Path) -> int:
    """Step of a run's newest complete checkpoint; 0 if there is none yet."""
    folder = RunFolder(workdir).checkpoints / "last"
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=0)


def stored(workdir: Path) -> tuple[int, dict]:
    """Step and content of a run's newest checkpoint, as NumPy arrays."""
    folder = RunFolder(workdir).checkpoints / "last"
    step = newest_step(workdir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # orbax: no shapes were given
        restore = ocp.StandardCheckpointer().restore
        return step, {item: restore(folder / str(step) / item) for item in ("model", "optimiser")}


def logged(workdir: Path, field: str) -> dict[int, object]:
    """A field of a run's log, by step."""
    lines = map(json.loads, RunFolder(workdir).log_file.read_text().splitlines())
    return {line["step"]: line[field] for line in lines if field in line}


def kill_at(step: int, monkeypatch) -> None:
    """Let a training die as it logs that step, until `monkeypatch.undo()`."""
    add = TrainingLog.add

    def die(log, at, metrics):
        if at == step:
            raise KeyboardInterrupt
        add(log, at, metrics)

    monkeypatch.setattr(TrainingLog, "add", die)


def final_state(config: ConfigDict, run: RunFolder):
    """State of a run's newest checkpoint that can be read, and what is known of its best one."""
    state = create_state(config, build_model(config, axis_name=AXIS), lambda step: 0.01)
    with Checkpoints(run.checkpoints / "last", keep=2) as last:
        return restore_last(last, state)


def assert_trees_equal(one, other) -> None:
    """To the bit."""
    jax.tree.map(np.testing.assert_array_equal, one, other)
