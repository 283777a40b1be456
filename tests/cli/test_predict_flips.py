"""`msseg predict --flips`: averages over mirror images."""

import json

import nibabel as nib
import numpy as np
import pytest

import msseg_jax
from msseg_jax.cli.main import main
from tests.support.runs import save_run


def predict(flags):
    return main(["predict", *map(str, flags)])


def voxels(path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture
def run(small_config, tmp_path):
    small_config.predict.threshold = 0.3
    return save_run(tmp_path / "run", small_config)


@pytest.mark.parametrize(("option", "value", "other"), [("flips", 1, 2), ("min_peak", 0, 0.9)])
def test_a_record_without_a_later_option_counts_as_one_with_its_default(
    run, patients_root, tmp_path, capsys, option, value, other
):
    out = tmp_path / "out"
    flags = [f"--model={run}", f"--dataset={patients_root}", f"--output={out}"]
    assert predict(flags) == 0
    for path in out.glob("*.json"):
        record = json.loads(path.read_text())
        assert record["options"].pop(option) == value
        path.write_text(json.dumps(record))
    capsys.readouterr()
    assert predict(flags) == 0
    assert "4 done before" in capsys.readouterr().out
    assert predict([*flags, f"--{option}={other}"]) == 1
    assert f"{option} was {value} and is {other}" in capsys.readouterr().err


def test_mirror_images_are_an_option_of_the_command_and_the_functions(run, flags, tmp_path):
    pair = flags[1], flags[3], flags[4].removeprefix("--mask=")
    plain = msseg_jax.find_new_lesions(*pair, model=run).probability
    for flips in (2, 8):
        path = tmp_path / f"{flips}.nii.gz"
        more = [f"--probability={path}", f"--flips={flips}"]
        assert predict([f"--model={run}", *flags, *more]) == 0
        found = msseg_jax.find_new_lesions(*pair, model=run, flips=flips)
        np.testing.assert_array_equal(voxels(path), found.probability)
        assert np.abs(found.probability - plain).max() > 1e-4
    with pytest.raises(msseg_jax.InputError, match="flips is 3; expected 1, 2, 4 or 8"):
        msseg_jax.find_new_lesions(*pair, model=run, flips=3)


def test_a_model_file_can_hold_the_number_of_mirror_images(run, flags, tmp_path, capsys):
    file = tmp_path / "four.safetensors"
    assert main(["export", f"--model={run}", f"--output={file}", "--flips=4"]) == 0
    assert "overlap 2 voxels, mean of 4 mirror images\n" in capsys.readouterr().out
    page, maps = tmp_path / "page.html", {}
    for model, more in ((file, [f"--report={page}"]), (run, ["--flips=4"]), (file, ["--flips=1"])):
        path = tmp_path / f"{len(maps)}.nii.gz"
        assert predict([f"--model={model}", *flags, *more, f"--probability={path}"]) == 0
        maps[len(maps)] = voxels(path)
    np.testing.assert_array_equal(maps[0], maps[1])
    assert np.abs(maps[0] - maps[2]).max() > 1e-4
    assert "overlap 2 voxels, mean of 4 mirror images<" in page.read_text()


def test_an_unknown_number_of_mirror_images_is_refused(run, flags, capsys):
    with pytest.raises(SystemExit):
        predict([f"--model={run}", *flags, "--flips=3"])
    error = capsys.readouterr().err
    assert "--flips" in error
    assert "1, 2, 4, 8" in error
