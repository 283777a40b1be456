"""`msseg predict --dataset`: patients that cannot be predicted do not stop the others."""

import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from msseg_jax.inference import patients as patients_module
from msseg_jax.volumes import layout
from tests.support.folders import predict
from tests.support.patients import SHAPE, save_nifti


def break_patients(root: Path) -> dict[str, str]:
    """Add patients that are broken in different ways; return a part of the reason for each."""
    good = root / "patient_0"

    def copy(name):
        return Path(shutil.copytree(good, root / name))

    second = copy("truncated") / layout.TIME02
    second.write_bytes(second.read_bytes()[:200])
    save_nifti(copy("grid") / layout.TIME02, np.ones((5, 6, 7), np.float32))
    image = nib.load(good / layout.TIME02)
    voxels = image.get_fdata(dtype=np.float32)
    voxels[5, 5, 5] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), copy("nan") / layout.TIME02)
    nib.save(
        nib.Nifti1Image(np.zeros(SHAPE, np.uint8), image.affine),
        copy("empty_mask") / layout.BRAIN_MASK,
    )
    shutil.copy(good / layout.TIME01, copy("twice") / layout.TIME02)
    (copy("missing") / layout.TIME01).unlink()
    folder = copy("folder")
    (folder / layout.TIME02).unlink()
    (folder / layout.TIME02).mkdir()
    looped = copy("looped") / layout.TIME02
    looped.unlink()
    looped.symlink_to(looped)
    (root / "link").symlink_to(root / "nowhere")
    (root / "void").mkdir()
    shutil.copytree(os.fsencode(good), os.fsencode(root) + b"/caf\xe9")
    return {
        "truncated": "or a damaged copy", "grid": "(5, 6, 7)", "nan": "NaN",
        "empty_mask": "the brain would be empty", "twice": "the same voxels",
        "missing": "no such file", "folder": layout.TIME02, "looped": "no such file",
        "link": "is a link to nothing", "void": "no such file", "caf\\udce9": "is not UTF-8",
    }  # fmt: skip


def test_every_good_patient_is_predicted_and_every_broken_one_is_listed(
    folder_flags, patients_root, out, capsys, monkeypatch
):
    reasons = break_patients(patients_root)
    shutil.copytree(patients_root / "patient_0", patients_root / "large")
    predict_one = patients_module.predict

    def with_little_memory(ensemble, patient, options):
        if patient.name == "large":
            raise MemoryError
        return predict_one(ensemble, patient, options)

    monkeypatch.setattr(patients_module, "predict", with_little_memory)
    reasons["large"] = "memory ran out"
    assert predict(folder_flags) == 1
    printed = capsys.readouterr()
    listed = printed.err.split("patients failed:\n")[1].splitlines()
    for name, reason in reasons.items():
        (line,) = (line for line in listed if line.startswith(f"  {name}: "))
        assert reason in line
    assert len([line for line in listed if not line.startswith("    ")]) == len(reasons)
    names = [f"patient_{k}" for k in range(4)]
    assert sorted(path.stem for path in out.glob("*.json")) == names
    last = printed.out.splitlines()[-1]
    total = 4 + len(reasons)
    assert re.fullmatch(
        rf"patients: {out}/index.html \({total} patients, {len(reasons)} failed\), [\d.]+ s", last
    )
    patients = pd.read_csv(out / "patients.csv", keep_default_na=False).set_index("patient")
    assert set(patients.index) == {*names, *reasons}
    for name, reason in reasons.items():
        assert patients.status[name] == "failed"
        assert reason in patients.reason[name]
    assert (patients.status[names] == "done").all()


def test_a_folder_without_a_usable_patient_is_refused_before_the_networks_are_loaded(
    untrained_run, patients_root, out, tmp_path, capsys, monkeypatch
):
    def never(*_):
        raise AssertionError("a network was loaded")

    monkeypatch.setattr("msseg_jax.cli.prediction.Ensemble", never)
    root = tmp_path / "root"
    for name in ("anna", "bert"):
        (root / name).mkdir(parents=True)
    shutil.copy(patients_root / "patient_0" / layout.TIME01, root / "anna")
    assert predict([f"--model={untrained_run}", f"--dataset={root}", f"--output={out}"]) == 1
    assert capsys.readouterr().err == (
        f"msseg predict: {root}/anna/{layout.TIME02}: no such file.\n"
        f"{root}/bert/{layout.TIME01}, {root}/bert/{layout.TIME02}: no such file.\n"
    )
    assert not out.exists()


def test_a_name_that_is_too_long_for_a_mask_fails_before_the_prediction(
    folder_flags, patients_root, out, capsys, monkeypatch
):
    (patients_root / "patient_1").rename(patients_root / ("x" * 252))
    seen = []
    predict_one = patients_module.predict

    def noted(ensemble, patient, options):
        seen.append(patient.name)
        return predict_one(ensemble, patient, options)

    monkeypatch.setattr(patients_module, "predict", noted)
    assert predict(folder_flags) == 1
    assert "cannot be written (File name too long)" in capsys.readouterr().err
    assert seen == ["patient_0", "patient_2", "patient_3"]
