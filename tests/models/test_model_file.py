"""Model files: their content, invalid files, and that old files stay readable."""

import copy
import json
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load, save

from msseg_jax.models import model_file
from msseg_jax.models.model_description import describe
from msseg_jax.models.model_file import About, read_model_file, write_model_file
from msseg_jax.models.network_digest import network_digest
from msseg_jax.models.networks import trained_networks
from msseg_jax.models.reliability import Reliability
from msseg_jax.network.model import SiameseMPUNet
from msseg_jax.system.errors import InputError
from tests.support import tiny
from tests.support.runs import save_run
from tests.support.session import DATA

V1 = DATA / "model_v1.safetensors"
ABOUT = About(
    name="Tiny", version="0.1", licence="CC0", attribution="the tests", training_data="nothing",
    description="Two networks.\nUntrained.",
)  # fmt: skip
TABLE = Reliability(
    above_mm3=(3.0, 30.0), above_probability=(0.5, 0.8), right=((3, 0), (1, 0)),
    marked=((10, 0), (3, 1)), threshold=0.5, min_lesion_mm3=10.0, flips=1, pairs="2 pairs",
)  # fmt: skip


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Return the networks of two untrained runs with different weights and landmarks."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [save_run(folder / f"run_{k}", tiny.get_config(), k, 40.0 + k) for k in range(2)]
    return [network for run in runs for network in trained_networks(run)]


@pytest.fixture
def path(networks, tmp_path):
    path = tmp_path / "tiny.safetensors"
    write_model_file(path, ABOUT, networks)
    return path


def content(path):
    """Return the description of a model file, parsed from JSON, and its tensors."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"].keys() == {"msseg_jax"}
    return json.loads(header["__metadata__"]["msseg_jax"]), load(data)


def rewrite(path, document, tensors):
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_bytes(save(tensors, metadata={"msseg_jax": text}))


def test_a_file_from_before_there_were_target_sets_has_raters_and_keeps_its_digest():
    one, two = read_model_file(V1).networks
    assert one.config.model.target_set == "raters"
    # Computed when the set was not a field. Records of predictions contain such digests.
    assert network_digest(one).startswith("39e5136fe6e930d3966f7ad0fe829db5")
    assert network_digest(two).startswith("7a053a85012049f7f0f261b9d7aff3bc")
    settings = one.config.model.model_copy(update={"target_set": "changes"})
    config = one.config.model_copy(update={"model": settings})
    assert network_digest(replace(one, config=config)) != network_digest(one)


def test_the_description_says_what_the_maps_show(networks, tmp_path):
    model = networks[0].config.model.model_copy(update={"target_set": "changes"})
    config = networks[0].config.model_copy(update={"model": model})
    path = tmp_path / "changes.safetensors"
    write_model_file(path, ABOUT, [replace(networks[0], config=config)])
    text = describe(read_model_file(path))
    assert re.search(r"^output maps +2: new, enlarging$", text, re.MULTILINE)


def test_a_model_file_is_read_as_it_was_written(path, networks):
    file = read_model_file(path)
    assert (file.path, file.about, file.written_by) == (path, ABOUT, "0.1.0")
    assert len(file.networks) == 2
    for number, (one, other) in enumerate(zip(networks, file.networks, strict=True)):
        jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
        assert other.preprocessing == one.preprocessing
        assert other.preprocessing.landmarks == (0.0, 40.0 + number, 100.0)
        assert (other.kind, other.step, other.about) == ("last", 4, ABOUT)
        assert str(other) == (
            f"Tiny 0.1 ({path}), network {number} of 2 (numbered from 0), last checkpoint (step 4)"
        )
        assert other.config.model.widths == (3, 2)
        assert other.config.predict == one.config.predict
        assert other.record["train"] == one.record["train"]
    kernels = [
        jax.tree.leaves(network.variables["params"]["segmentation"])[0] for network in file.networks
    ]
    assert (kernels[0] != kernels[1]).any()


def test_the_same_networks_give_the_same_bytes_with_default_permissions(path, networks, tmp_path):
    again = tmp_path / "again.safetensors"
    for _ in range(5):
        write_model_file(again, ABOUT, networks)
        assert again.read_bytes() == path.read_bytes()
    (tmp_path / "any").write_text("")
    assert again.stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_reliability_table_is_read_as_it_was_written(path, networks, tmp_path):
    other = tmp_path / "with_table.safetensors"
    write_model_file(other, ABOUT, networks, TABLE)
    file = read_model_file(other)
    assert file.reliability == TABLE
    assert [network.reliability for network in file.networks] == [TABLE, TABLE]
    assert [network_digest(one) for one in file.networks] == [*map(network_digest, networks)]
    text = describe(file)
    assert re.search(r"^reliability +4 of 14 marked lesions were right, by vol", text, re.MULTILINE)
    assert re.search(r"^ +10 to 30 +3 of 10 +- +3 of 10$", text, re.MULTILINE)
    assert text.endswith("threshold 0.5, smallest lesion 10 mm3, 1 mirror image")
    # An older program must say that the file is newer, and not that it is damaged.
    document, tensors = content(other)
    assert document.pop("reliability") == TABLE.model_dump(mode="json")
    assert document.pop("format_version") == 2
    # Without a table, a file is the same as before there were tables.
    plain, same = content(path)
    assert plain.pop("format_version") == 1
    assert plain == document
    jax.tree.map(np.testing.assert_array_equal, same, tensors)
    assert read_model_file(path).reliability is None
    assert "marked lesions" not in describe(read_model_file(path))
    # The table belongs to the file, not to the networks.
    write_model_file(other, ABOUT, file.networks)
    assert other.read_bytes() == path.read_bytes()


def test_no_path_of_the_machine_is_written(small_config, tmp_path):
    small_config.data.cache_dir = str(tmp_path / "cache")
    small_config.init = str(tmp_path / "earlier.safetensors")
    small_config.init_network = 1
    path = tmp_path / "one.safetensors"
    write_model_file(path, ABOUT, trained_networks(save_run(tmp_path / "run", small_config)))
    assert str(tmp_path).encode() not in path.read_bytes()
    (entry,) = content(path)[0]["networks"]
    assert entry["config"]["data"]["root"] == ""
    assert entry["config"]["data"]["cache_dir"] is None
    assert (entry["config"]["init"], entry["config"]["init_network"]) == ("", 0)
    assert str(read_model_file(path).networks[0]).startswith(f"Tiny 0.1 ({path}), last checkpoint")


def test_a_file_of_the_first_version_gives_the_same_results():
    """Compare with results of the version that wrote the file. They must never change."""
    file = read_model_file(V1)
    assert file.about.title == "made up 1.0"
    assert file.about.description == "Weights from a random number generator, for tests."
    assert [n.preprocessing.landmarks for n in file.networks] == [(0, 40, 100), (0, 60, 100)]
    assert [(n.kind, n.step) for n in file.networks] == [("last", 10), ("best", 11)]
    settings = file.networks[0].preprocessing.settings
    assert (settings.spacing_mm, settings.percentiles, settings.patch_size) == (1, (1, 50, 99), 8)
    assert file.networks[0].config.predict.model_dump() == {
        "overlap": 2, "threshold": 0.6, "min_lesion_mm3": 0.0, "min_peak": 0.0, "batch_size": 4,
        "flips": 1,
    }  # fmt: skip
    visits = np.sin(np.arange(2 * 512, dtype=np.float32)).reshape(2, 1, 8, 8, 8, 1)
    expected = [
        ([0.14047182, 0.18736346], [0.08394726, 0.12031221]),
        ([0.7806495, 0.7205223], [0.7810891, 0.72181547]),
    ]
    for network, (mean, inside) in zip(file.networks, expected, strict=True):
        model = SiameseMPUNet(network.config.model)
        probabilities = np.asarray(model.apply(network.variables, *visits, train=False))
        np.testing.assert_allclose(probabilities.mean(axis=(0, 1, 2, 3)), mean, atol=1e-5)
        np.testing.assert_allclose(probabilities[0, 3, 4, 5], inside, atol=1e-5)


def test_the_weights_that_were_released_before_are_read_with_the_same_numbers_and_options():
    file = read_model_file(DATA / "open_ms_3.safetensors")
    assert file.about.title == "open_ms 3"
    assert [network_digest(network)[:16] for network in file.networks] == [
        "7bb47d48f0849218", "d7ae8e6a55affc04",
    ]  # fmt: skip
    for network in file.networks:
        predict = network.config.predict
        assert (predict.threshold, predict.min_lesion_mm3, predict.min_peak) == (0.6, 30, 0)
        assert network.config.model.map_names == ("consensus",)


def test_a_file_with_other_fields_in_the_record_of_its_training_is_read(path):
    """Check that fields of another version are kept, and that no field of the record is needed."""
    document, tensors = content(path)
    config = document["networks"][0]["config"]
    del config["augmentation"], config["init"], config["data"]["workers"]
    config["train"]["momentum"] = 0.9
    rewrite(path, document, tensors)
    assert read_model_file(path).networks[0].record["train"]["momentum"] == 0.9


def set_to(*keys):
    """Return a change of the description. For 'a', 'b' and 1 it sets ['a']['b'] to 1."""
    *parents, last, value = keys

    def change(document, _):
        for key in parents:
            document = document[key]
        document[last] = value

    return change


def without(*keys):
    """Return a change of the description. For 'a' and 'b' it deletes ['a']['b']."""
    *parents, last = keys

    def change(document, _):
        for key in parents:
            document = document[key]
        del document[last]

    return change


KERNEL = "1/params/refinement/output/kernel"
FIRST = ("networks", 0)
CONFIG = (*FIRST, "config")
FITTED = (*FIRST, "preprocessing")
DAMAGED = "is damaged: .*expected a model file, as .*export` writes it. Copy or download it again."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, t: t.pop(KERNEL), rf"tensors are missing \(1 in all\), such as {KERNEL}"),
        (
            lambda d, t: t.update(more=np.ones(3, "f4")),
            r"tensors are unknown \(1 in all\), such as more",
        ),
        (
            lambda d, t: d["networks"].pop(),
            r"tensors are unknown \(.* in all\), such as 1/batch_stats",
        ),
        (lambda d, t: t.update({KERNEL: t[KERNEL][0]}), f"{KERNEL} is .* F32, but .* needs"),
        (lambda d, t: t.update({KERNEL: t[KERNEL].astype("f2")}), f"{KERNEL} is .* F16, but"),
        (lambda d, t: t.update({KERNEL: t[KERNEL].astype("f8")}), f"{KERNEL} is .* F64, but"),
        (lambda d, t: t.update({KERNEL: t[KERNEL] * np.nan}), f"{KERNEL} has numbers that are not"),
        (set_to("format_version", "1"), "its format version is '1'"),
        (set_to("format_version", 0), "its format version is 0"),
        (without("format_version"), "its format version is None"),
        (set_to("more", 1), "description.more is not a field"),
        (set_to("reliability", []), r"description.reliability is ..; expected an? "),
        (set_to("reliability", {"flips": 1}), "description.reliability.right is missing"),
        (
            set_to("reliability", TABLE.model_dump() | {"right": [[3, 0], [4, 0]]}),
            r"description.reliability.right.1..0. is 4; expected at most 3, the number of marked",
        ),
        (
            set_to("reliability", TABLE.model_dump() | {"threshold": 1}),
            "description.reliability.threshold is 1; expected 0 or more and less than 1",
        ),
        (without("written_by"), "description.written_by is missing"),
        (
            without("about", "licence"),
            "description.about.licence is missing",
        ),
        (set_to("about", []), "description.about is .*; expected an? "),
        (set_to("networks", []), "description.networks is ..; expected 1 or more values"),
        (set_to("networks", {}), "description.networks is {}; expected a valid (tuple|array)"),
        (set_to("networks", 0, 1), "description.networks.0. is 1; expected an? "),
        (
            set_to(*FIRST, "kind", "worst"),
            "networks.0..kind is 'worst'; expected 'best' or 'last'",
        ),
        (set_to(*FIRST, "step", None), "networks.0..step is None; expected a valid integer"),
        (without(*CONFIG, "predict"), "networks.0..config.predict is missing"),
        (without(*CONFIG, "model", "targets"), "networks.0..config.model.targets is missing"),
        (set_to(*CONFIG, "model", "depth", 3), "networks.0..config.model.depth is not a field"),
        (
            set_to(*CONFIG, "predict", "tile", 3),
            "networks.0..config.predict.tile is not a field",
        ),
        (
            without(*CONFIG, "data", "spacing_mm"),
            "networks.0..config.data.spacing_mm is missing",
        ),
        (
            set_to(*CONFIG, "model", "widths", [3]),
            "config.model.widths is .3.; expected 2 or more values",
        ),
        (
            set_to(*CONFIG, "model", "widths", "ab"),
            "config.model.widths is 'ab'; expected a valid",
        ),
        (
            set_to(*CONFIG, "model", "widths", [1] * 99),
            "config.model.widths is .1, 1, .*; expected at most 12 values",
        ),
        (
            set_to(*CONFIG, "model", "widths", [1] * 12),
            "config.data.patch_size: patch side 8 is",
        ),
        (
            set_to(*CONFIG, "model", "targets", 1.5),
            "config.model.targets is 1.5; expected a valid integer",
        ),
        (set_to(*CONFIG, "data", "patch_size", 9), "patch side 9 is not a multiple of 2"),
        (
            set_to(*CONFIG, "data", "spacing_mm", 0.5),
            "config.data is spacing_mm=0.5 .*; expected spacing_mm=1.0 ",
        ),
        (
            set_to(*CONFIG, "predict", "threshold", "0.5"),
            "config.predict.threshold is '0.5'; expected a valid number",
        ),
        (
            set_to(*CONFIG, "predict", "threshold", 1),
            "config.predict.threshold is 1; expected 0 or",
        ),
        (without(*FITTED, "deviation"), "networks.0..preprocessing.deviation is missing"),
        (set_to(*FITTED, "fitted", 1), "networks.0..preprocessing.fitted is not a field"),
        (set_to(*FITTED, "landmarks", [0, 100]), "has 2 landmarks; expected 3"),
        (
            set_to(*FITTED, "landmarks", [0, "1", 2]),
            "preprocessing.landmarks.1. is '1'; expected a valid number",
        ),
        (set_to(*FITTED, "landmarks", [5, 5, 5]), "5.0, 5.0.; expected ascending numbers"),
        (set_to(*FITTED, "landmarks", [5, 7, 6]), "7.0, 6.0.; expected ascending numbers"),
        (set_to(*FITTED, "deviation", -1), "preprocessing.deviation is -1; expected 0 or more"),
        (set_to(*FITTED, "landmarks", 7), "preprocessing.landmarks is 7; expected a valid"),
        (
            set_to(*FITTED, "deviation", float("nan")),
            "deviation is nan; expected a finite number",
        ),
        (set_to(*FITTED, "settings", "more", 1), "preprocessing.settings.more is not a field"),
    ],
)
def test_a_damaged_file_is_refused(path, change, message):
    document, tensors = content(path)
    change(document, tensors)
    rewrite(path, document, tensors)
    with pytest.raises(InputError, match=message) as error:
        read_model_file(path)
    assert str(error.value).startswith(f"{path}: is damaged: ")
    assert str(error.value).endswith("`msseg export` writes it. Copy or download it again.")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "1", '{"format_version": true}'])
def test_a_description_that_is_not_valid_json_is_refused(path, text):
    rewrite(path, text, content(path)[1])
    with pytest.raises(InputError, match=DAMAGED):
        read_model_file(path)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("name", "", "the text is empty"),
        ("name", "a\nb", "the text 'a.*b' is not a single line of printable characters"),
        (
            "description",
            "\x1b[2J",
            "about.description: the text .* contains characters that cannot",
        ),
        ("version", 1, "about.version is 1; expected a valid string"),
    ],
)
def test_text_that_cannot_be_printed_is_neither_read_nor_written(
    path, networks, tmp_path, field, text, message
):
    document, tensors = content(path)
    document["about"][field] = text
    rewrite(path, document, tensors)
    with pytest.raises(InputError, match=message):
        read_model_file(path)
    other = tmp_path / "other.safetensors"
    with pytest.raises(InputError, match=message):
        write_model_file(other, ABOUT.model_copy(update={field: text}), networks)
    assert not other.exists()


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.0\x1b[2J", "written_by: the text .* is not a single line of printable characters"),
        ("1.0\n2.0", "written_by: the text .* is not a single line of printable characters"),
        ([1, 0], "written_by is .1, 0.; expected a valid string"),
    ],
)
def test_the_version_of_the_writer_must_be_printable_text(path, version, message):
    document, tensors = content(path)
    rewrite(path, document | {"written_by": version}, tensors)
    with pytest.raises(InputError, match=message):
        read_model_file(path)


def test_a_file_of_a_newer_version_is_refused_as_newer_not_as_damaged(path):
    document, tensors = content(path)
    document = {"format_version": 3, "whatever": document}
    rewrite(path, document, tensors)
    message = "was written by a newer version .* format version is 3; expected at most 2. Update"
    with pytest.raises(InputError, match=message):
        read_model_file(path)


def test_other_files_are_refused_and_no_code_in_them_is_executed(path, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    complete = path.read_bytes()
    header = int.from_bytes(complete[:8], "little")
    no_metadata = save({"weight": np.ones(3, np.float32)})
    other_program = save({"weight": np.ones(3, np.float32)}, metadata={"format": "pt"})
    for data in (b"", b"abc", complete[:8], complete[: header // 2], complete[: 8 + header],
                 complete[:-1], complete + b"0",
                 pickle.dumps(Payload()), b"PK\x03\x04" + bytes(500)):  # fmt: skip
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"is not a complete safetensors file .* expected"):
            read_model_file(path)
    for data in (no_metadata, other_program):
        path.write_bytes(data)
        with pytest.raises(InputError, match="file of another program, because its metadata"):
            read_model_file(path)
    assert not (tmp_path / "executed").exists()
    missing = tmp_path / "nowhere.safetensors"
    with pytest.raises(InputError, match=f"{missing}: no such file; expected a model file"):
        read_model_file(missing)
    with pytest.raises(InputError, match=f"{tmp_path}: is a folder; expected a model file"):
        read_model_file(tmp_path)


def test_networks_with_infinite_weights_are_not_written(networks, tmp_path):
    wrong = copy.deepcopy(networks[0].variables)
    bias = wrong["params"]["refinement"]["output"]
    bias["bias"] = np.array([0, np.inf], np.float32)
    path = tmp_path / "wrong.safetensors"
    with pytest.raises(InputError, match="refinement/output/bias has numbers that are not fin"):
        write_model_file(path, ABOUT, [replace(networks[0], variables=wrong)])
    with pytest.raises(InputError, match=r"wrong.npz: expected a name that ends in .safetensors"):
        write_model_file(tmp_path / "wrong.npz", ABOUT, networks)
    assert not list(tmp_path.glob("wrong*"))


def test_a_full_disk_leaves_the_old_file_unchanged(path, networks, monkeypatch):
    before = path.read_bytes()

    def fail(partial, data):
        with partial.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        write_model_file(path, ABOUT.model_copy(update={"version": "0.2"}), networks)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.glob("*.safetensors")] == [path.name]
    assert not list(path.parent.glob(".partial-*"))


def test_a_path_is_a_model_file_if_it_is_a_file_or_has_the_suffix(path, tmp_path):
    assert model_file.is_model_file(path)
    assert model_file.is_model_file(path.rename(tmp_path / "renamed"))
    assert model_file.is_model_file(tmp_path / "missing.safetensors")  # for a message about a file
    assert not model_file.is_model_file(tmp_path)
    (tmp_path / "run.safetensors").mkdir()
    assert not model_file.is_model_file(tmp_path / "run.safetensors")
    assert not model_file.is_model_file(tmp_path / "missing")
