"""The configuration: its values are checked, read, overridden, stored and compared."""

import re

import jax
import jax.numpy as jnp
import pytest

from msseg_jax.configuration import files
from msseg_jax.configuration.comparison import differences, what_must_agree
from msseg_jax.configuration.files import default, find, names, read, shipped, typed
from msseg_jax.configuration.listing import list_fields
from msseg_jax.configuration.section import Section
from msseg_jax.configuration.sections import Configuration, PreprocessingSettings, TrainedSettings
from msseg_jax.network.model import SiameseMPUNet, initial_variables
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.training.devices import AXIS
from msseg_jax.training.step import create_state, train_step
from tests.support.session import ROOT


@pytest.mark.parametrize("name", names())
def test_every_shipped_configuration_gives_a_network_and_a_training_step(name):
    config = typed(shipped(name))
    model = SiameseMPUNet(config.model, AXIS)
    side, targets = config.data.patch_size, config.model.targets
    visit = jax.ShapeDtypeStruct((2, side, side, side, 1), jnp.float32)
    batch = {
        "time01": visit,
        "time02": visit,
        "targets": jax.ShapeDtypeStruct((2, side, side, side, targets), jnp.uint8),
        "patch_ids": jax.ShapeDtypeStruct((2,), jnp.int32),
    }
    state = jax.eval_shape(lambda: create_state(model, lambda step: 0.1))
    mapped = jax.vmap(
        lambda state, batch: train_step(state, batch, seed=0),
        in_axes=(None, 0), axis_name=AXIS, axis_size=1,
    )  # fmt: skip
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), batch)
    after, metrics = jax.eval_shape(mapped, state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert metrics["loss"].shape == (1,)
    assert metrics["loss"].dtype == jnp.float32


def test_msseg2_has_the_constants_of_the_paper():
    config = shipped("msseg2")
    assert config.data.patch_size == 56
    assert config.data.patches_per_patient == 872
    assert config.data.lesion_patch_probability == 0.8
    assert config.data.spacing_mm == 0.8
    assert config.train.batch_size == 40
    assert config.train.epochs == 40
    assert config.train.learning_rate == 0.004
    assert config.train.learning_rate_decay == 0.9
    assert config.predict.overlap == 14
    assert config.predict.threshold == 0.6
    assert config.model.targets == 5


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.patch_size", 50, "patch side 50 is not a multiple of 8.* 48 and 56"),
        ("data.spacing_mm", 0.0, "expected more than 0"),
        ("data.percentiles", (10, 1), "ascending"),
        ("data.lesion_patch_probability", 1.5, "expected 0 to 1"),
        ("data.workers", 0, "1 or more"),
        ("data.folds", 1, "0 .no cross-validation., or 2 or more"),
        ("data.folds", -2, "expected 0 or more"),
        ("data.fold", 1, "fold is 1; expected 0, because config.data.folds is 0"),
        ("model.widths", (6,), "2 or more values"),
        ("model.dropout_rate", 1.0, "less than 1"),
        ("train.batch_size", 0, "1 or more"),
        ("train.learning_rate_decay", 0.0, "more than 0 and at most 1"),
        ("predict.overlap", 56, "0 to 55 voxels"),
        ("predict.threshold", 1.0, "less than 1"),
    ],
)
def test_invalid_values_are_refused_with_the_name_of_the_field(field, value, message):
    config = shipped("msseg2")
    with config.unlocked():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=message) as error:
        typed(config)
    assert f"config.{field}" in str(error.value)


@pytest.mark.parametrize(
    ("fold", "validation_patients", "message"),
    [
        (5, 0, "config.data.fold is 5; expected the number of a fold, from 0 to 4"),
        (-1, 0, "config.data.fold is -1; expected the number of a fold, from 0 to 4"),
        (
            0,
            2,
            "config.data.validation_patients is 2; expected 0, because config.data.folds is set",
        ),
    ],
)
def test_a_fold_must_exist_and_excludes_validation_patients(fold, validation_patients, message):
    config = shipped("msseg2")
    config.data.folds = 5
    config.data.fold = 4
    typed(config)
    config.data.fold = fold
    config.data.validation_patients = validation_patients
    with pytest.raises(InputError, match=message):
        typed(config)


@pytest.mark.parametrize(
    ("values", "places"),
    [
        (
            {"data.patch_size": 50, "augmentation.slice_voxels": 400.0, "init_network": 1},
            ["config.augmentation.slice_voxels", "config.data.patch_size", "config.init_network"],
        ),
        (
            {"data.folds": 3, "data.fold": 4, "data.validation_patients": 1},
            ["config.data.fold", "config.data.validation_patients"],
        ),
    ],
)
def test_all_contradictions_are_reported_together(values, places):
    config = default()
    config.update_from_flattened_dict(values)
    with pytest.raises(InputError) as error:
        typed(config)
    named = sorted(re.match(r"[\w.]+", line).group(0) for line in str(error.value).splitlines())
    assert named == places


def test_a_message_begins_with_the_place_of_the_value():
    fields = {"spacing_mm": 1.0, "percentiles": [5, 1], "patch_size": 8}
    with pytest.raises(InputError, match=r"^networks\[3\].settings.percentiles is \(5.0, 1.0\)"):
        PreprocessingSettings.of(fields, "networks[3].settings")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("config.train.batch_size = '8'", "TypeError"),
        ("config.train.batch_sice = 8", "batch_sice"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("return 7", "get_config() returned 7; expected a ConfigDict"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named_with_the_reason(tmp_path, line, reason):
    (tmp_path / "mine.py").write_text(
        "from msseg_jax.configuration.files import default\n"
        f"def get_config():\n    config = default()\n    {line}\n    return config\n"
    )
    with pytest.raises(InputError) as error:
        read(tmp_path / "mine.py")
    assert "mine.py" in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_can_change_its_length_and_its_logging_but_not_its_folds():
    stored = typed(default())
    assert differences(stored.with_data(folds=5, fold=1), stored) == [
        "config.data.fold is 1, but the run has 0",
        "config.data.folds is 5, but the run has 0",
    ]
    config = default()
    config.train.epochs, config.data.root, config.train.log_every_steps = 50, "elsewhere", 3
    assert differences(typed(config), stored) == []


def test_processes_may_differ_only_in_settings_of_their_machine():
    config = typed(default())
    assert what_must_agree(config.with_data(root="elsewhere", workers=7)) == what_must_agree(config)
    assert what_must_agree(config.with_data(patch_size=64)) != what_must_agree(config)


def test_all_invalid_values_are_reported_together():
    config = shipped("msseg2")
    config.train.batch_size = 0
    config.data.spacing_mm = -1.0
    with pytest.raises(InputError) as error:
        typed(config)
    assert len(str(error.value).splitlines()) == 2


def test_a_stored_configuration_is_read_unchanged(tmp_path):
    for name in names():
        config = typed(shipped(name))
        (tmp_path / "config.json").write_text(config.model_dump_json())
        stored = Configuration.of(read_json(tmp_path / "config.json"), "config")
        assert stored == config
        assert SiameseMPUNet(stored.model) == SiameseMPUNet(config.model)


def test_sections_are_frozen_and_equal_sections_have_the_same_hash():
    config, same = typed(default()), typed(default())
    assert hash(config) == hash(same)
    with pytest.raises(ValueError, match="frozen"):
        config.train.epochs = 3


def test_settings_on_which_a_network_depends_must_be_complete():
    fields = typed(default()).trained.model_dump(mode="json")
    assert TrainedSettings.of(fields, "config", complete=True).data.patch_size == 56
    del fields["model"]["targets"]
    assert TrainedSettings.of(fields, "config").model.targets == 5
    with pytest.raises(InputError, match=r"^config.model.targets is missing$"):
        TrainedSettings.of(fields, "config", complete=True)


def test_fields_that_older_files_lack_have_their_defaults():
    fields = typed(default()).model_dump(mode="json")
    del fields["model"]["target_set"], fields["train"]["loss"], fields["train"]["decoder_weight"]
    config = Configuration.of(fields, "config", complete=True)
    assert config == typed(default())
    assert config.model.target_set == "raters"
    assert (config.train.loss, config.train.decoder_weight) == ("all_targets", 0)


def test_the_target_set_limits_the_other_fields():
    config = default()
    config.model.targets = 6
    assert typed(config).model.map_names[-1] == "expert 5"
    config.train.decoder_weight = 0.5
    with pytest.raises(InputError) as error:
        typed(config)
    assert str(error.value) == (
        "config.train.decoder_weight is 0.5; expected 0, because config.model.target_set is "
        "'raters', which has no map of all lesions. Or use config.model.target_set='changes'"
    )
    config.model.target_set = "changes"
    config.data.phantom_patients = 4
    with pytest.raises(InputError) as error:
        typed(config)
    assert str(error.value).splitlines() == [
        "config.model.targets is 6; expected 1 to 5, because config.model.target_set is 'changes'",
        "config.data.phantom_patients is 4; expected 0, because config.model.target_set is "
        "'changes', and phantoms have only maps of raters",
    ]
    config.data.phantom_patients, config.model.targets = 0, 2
    assert typed(config).model.map_names == ("new", "enlarging")
    config.model.target_set = "change"
    with pytest.raises(InputError, match=r"config.model.target_set is 'change'; expected 'raters'"):
        typed(config)


def test_a_configuration_is_found_by_its_name_or_by_its_path(tmp_path, monkeypatch):
    assert find("msseg2") == find(str(ROOT / "configs" / "msseg2.py"))
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from msseg_jax.configuration.files import shipped\n"
        "def get_config():\n"
        "    config = shipped('demo')\n"
        "    config.seed = 7\n"
        "    return config\n"
    )
    monkeypatch.chdir(tmp_path)
    config = read(find("mine.py"), ["--config.train.epochs=9", "--config.augmentation.enabled"])
    assert (config.seed, config.train.epochs, config.data.patch_size) == (7, 9, 24)
    assert config.augmentation.enabled
    with pytest.raises(InputError, match=r"--config=mine: no such file.*, msseg2,"):
        find("mine")


def test_shipped_configurations_are_found_in_the_folder_of_the_package(tmp_path, monkeypatch):
    (tmp_path / "only.py").write_text((ROOT / "configs" / "msseg2.py").read_text())
    monkeypatch.setattr(files, "_FOLDER", tmp_path)
    assert names() == ["only"]
    assert typed(shipped("only")) == Configuration()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--config.train.batch_sice=8"], "did you mean config.train.batch_size?"),
        (["--config.train.foo=8"], "config.train has no field 'foo'; expected one of compute_dt"),
        (["--config.train=8"], "config.train is a section; expected one of its fields"),
        (["--config.=8"], "config has no field ''"),
        (
            ["--config.model.widths.0=8"],
            "config.model.widths cannot be set in parts; set its whole value, such as '(1,2)'",
        ),
        (["--noconfig.augmentation.enabled=true"], "does not take an argument"),
        (["--config.seed=None"], "--config.seed=None"),
        (
            [f"--config.seed={2**63}"],
            "config.seed is 9223372036854775808; expected 0 to 4294967295",
        ),
        (
            ["--config.train.batch_size=many"],
            "--config.train.batch_size=many: expected a whole number, 1 or more",
        ),
        (["--config.data.phantom_spacing_mm=x"], "_mm=x: expected a number, 0.5 to 4"),
        (["--config.augmentation.enabled=maybe"], "enabled=maybe: expected true or false"),
        (["--config.seed=-1"], "config.seed is -1; expected 0 to 4294967295"),
        (["--config.data.root=a\udcff"], "root=a\\udcff: contains bytes that are not valid UTF-8"),
        (["more"], "'more' is not a flag; write flags as --name=value"),
        (["--more=1"], "Unknown command line flag 'more'"),
    ],
)
def test_an_invalid_override_is_refused(overrides, message):
    with pytest.raises(InputError) as error:
        read(find("msseg2"), overrides)
    assert message in str(error.value)


def test_an_optional_field_can_be_set_to_none():
    given = read(find("demo"), ["--config.data.cache_dir=x"]).data
    assert given.cache_dir == "x"
    assert given.phantom_spacing_mm is not None
    nones = ["--config.data.cache_dir=None", "--config.data.phantom_spacing_mm=None"]
    cleared = read(find("demo"), nones).data
    assert (cleared.cache_dir, cleared.phantom_spacing_mm) == (None, None)


def test_an_invalid_item_of_a_tuple_is_reported_in_one_line():
    with pytest.raises(InputError, match=r"^config.model.widths\[0\] is 0; expected 1 or more$"):
        read(find("msseg2"), ["--config.model.widths=(0,7)"])


def test_a_file_of_the_same_name_does_not_hide_a_shipped_configuration(tmp_path, monkeypatch):
    (tmp_path / "msseg2").write_text("not a configuration")
    monkeypatch.chdir(tmp_path)
    assert read(find("msseg2")) == Configuration()
    assert typed(shipped("msseg2")) == Configuration()


def test_a_configuration_file_may_define_a_dataclass(tmp_path):
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from msseg_jax.configuration.files import default\n"
        "@dataclass\nclass Site:\n    seed: int = 3\n"
        "def get_config():\n    config = default()\n    config.seed = Site().seed\n"
        "    return config\n"
    )
    assert read(tmp_path / "own.py").seed == 3


def test_a_configuration_file_that_exits_is_refused(tmp_path):
    (tmp_path / "own.py").write_text("import sys\ndef get_config():\n    sys.exit(0)\n")
    with pytest.raises(
        InputError, match=r"own.py: SystemExit: 0; expected a function get_config\(\)"
    ):
        read(tmp_path / "own.py")


def test_a_file_without_get_config_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(InputError, match=r"empty.py"):
        read(tmp_path / "empty.py")


def test_the_list_of_fields_contains_their_defaults_meanings_and_ranges():
    listed = list_fields()
    for line in (
        "  --config.data.spacing_mm=0.8\n"
        "      isotropic voxel spacing to which all scans are resampled, mm (more than 0)\n",
        "  --config.predict.threshold=0.6\n",
        "  --config.augmentation.noise=0.15\n",
        "(0 or more and less than 1)",
    ):
        assert line in listed
    assert listed.count("--config.") == len(typed(default()).model_dump_json().split('":')) - 6


def test_initial_weights_depend_only_on_the_seed(small_config):
    model = SiameseMPUNet(typed(small_config).model)
    one, same, other = (
        initial_variables(model, seed)["params"]["refinement"]["unit_0"]["convolution"]["kernel"]
        for seed in (0, 0, 1)
    )
    assert (one == same).all()
    assert (one != other).all()


class Inner(Section):
    a: int
    b: str = "default"


class Outer(Section):
    inner: Inner | None
    items: tuple[float, ...] = ()


def test_a_field_that_an_optional_section_lacks_is_missing():
    assert Outer.of({"inner": None, "items": []}, "x", complete=True).inner is None
    with pytest.raises(InputError, match=r"^x.inner.b is missing$"):
        Outer.of({"inner": {"a": 1}, "items": []}, "x", complete=True)


def test_messages_about_long_values_are_short():
    with pytest.raises(InputError) as error:
        Outer.of({"inner": {"a": "y" * 10**6}, "items": ["x"] * 5000}, "x")
    lines = str(error.value).split("\n")
    assert lines[0].startswith("x.inner.a is 'yyyy")
    assert lines[-1] == "and 4981 more problems"
    assert len(str(error.value)) < 4000


def test_a_section_that_is_nested_too_deeply_is_refused():
    deep: list = []
    for _ in range(10**5):
        deep = [deep]
    with pytest.raises(InputError, match="x is nested too deeply"):
        Outer.of({"inner": None, "items": deep}, "x")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("config.model.widths = (3,) * 10**6", "config.model.widths has 1000000 characters or"),
        ("config = config.model", "config.augmentation is missing; start from default"),
    ],
)
def test_a_configuration_file_with_unusable_fields_is_refused_at_once(tmp_path, line, message):
    (tmp_path / "own.py").write_text(
        "from msseg_jax.configuration.files import default\n"
        f"def get_config():\n    config = default()\n    {line}\n    return config\n"
    )
    with pytest.raises(InputError, match=message):
        read(tmp_path / "own.py", ["--config.seed=1"])


def test_the_name_of_a_configuration_may_be_too_long_for_the_system():
    with pytest.raises(InputError, match=r"--config=xxxx.*: no such file"):
        find("x" * 10_000)
