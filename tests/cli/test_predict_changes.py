"""`msseg predict` with a model of changes: its further outputs, the table, and what is refused."""

import json
import re
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import msseg_jax
from msseg_jax.cli.main import main
from msseg_jax.configuration.targets import CHANGES
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.lesion_table import COLUMNS
from msseg_jax.inference.scans import ScannerGrid
from msseg_jax.volumes import layout
from msseg_jax.volumes.pair import read_pair
from tests.support import heads
from tests.support.patients import SHAPE, SPACING_MM
from tests.support.runs import models, save_run

OUTPUTS = ("changes", "lesions01", "lesions02")
COARSE_THRESHOLD = 0.4567  # no voxel has this probability, up to rounding


def predict(flags):
    return main(["predict", *map(str, flags)])


def voxels(path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def change_run(folder, config, targets=5, **more):
    """Write a run with an untrained network that gives maps of changes, and return its folder."""
    config.model.target_set, config.model.targets = "changes", targets
    return save_run(folder, config, **more)


@pytest.fixture
def run(small_config, tmp_path):
    small_config.predict.threshold = 0.3
    return change_run(tmp_path / "run", small_config)


@pytest.fixture
def files(tmp_path):
    """Return the paths of all further outputs, by the name of their flag."""
    return {name: tmp_path / f"{name}.nii.gz" for name in OUTPUTS}


def as_flags(files):
    return [f"--{name}={path}" for name, path in files.items()]


def known_maps(shape) -> np.ndarray:
    """Return five maps with a new, an enlarging and a vanished lesion, as boxes of voxels."""
    maps = np.zeros((5, *shape), np.float32)
    maps[0, 5:7, 5:7, 5:7] = 0.9  # 8 voxels
    maps[1, 6:9, 5:7, 5:7] = 0.95  # overlaps the new lesion by 4 of 12 voxels
    maps[2, 3:5, 9:11, 9:12] = 0.8  # 12 voxels
    maps[3, 3:5, 9:11, 9:14] = 0.8  # 20 voxels
    maps[3, 8, 5:7, 5:7] = 0.8  # 4 voxels
    maps[4, 5:9, 5:7, 5:7] = 0.8  # 16 voxels
    maps[4, 3:5, 9:11, 12:14] = 0.8  # 8 voxels; it does not touch the part that went
    return maps


@pytest.fixture
def known(monkeypatch):
    """Replace the maps of all predictions by those of `known_maps`."""
    segment = Ensemble.segment

    def segmented(ensemble, patient, pair, *others):
        found = segment(ensemble, patient, pair, *others)
        return replace(found, maps=known_maps(pair.brain.shape))

    monkeypatch.setattr(Ensemble, "segment", segmented)


# ------------------------------------------------------------------------------------- the maps


def test_each_map_of_an_ensemble_is_the_mean_of_the_maps_of_its_members(
    small_config, patients_root, tmp_path
):
    small_config.predict.threshold = 0.3
    five = change_run(tmp_path / "five", small_config, seed=0)
    three = change_run(tmp_path / "three", small_config, targets=3, seed=1, middle=30.0)
    small_config.model.target_set, small_config.model.targets = "raters", 2
    raters = save_run(tmp_path / "raters", small_config, seed=2)
    patient = layout.find_patients(patients_root, 0)[0]
    pair = read_pair(patient)

    def maps_of(*runs):
        ensemble = Ensemble(runs)
        found = ensemble.segment(patient, pair, ensemble.options())
        assert len(found.maps) == ensemble.map_count
        assert found.maps.dtype == np.float32
        return found.maps

    single = [maps_of(one) for one in (five, three, raters)]
    assert [len(maps) for maps in single] == [5, 3, 1]
    assert np.abs(np.diff(single[0], axis=0)).max(axis=(1, 2, 3)).min() > 1e-3  # all maps differ
    assert all((maps[:, ~pair.brain] == 0).all() for maps in single)
    both = maps_of(five, three)
    np.testing.assert_allclose(both, (single[0][:3] + single[1]) / 2, atol=1e-6)
    everything = maps_of(three, five, raters)
    mean = (single[0][:1] + single[1][:1] + single[2]) / 3
    np.testing.assert_allclose(everything, mean, atol=1e-6)


# ------------------------------------------------------------------------------- written files


def test_the_label_map_and_the_masks_of_both_visits_are_written_on_the_grid_of_the_mask(
    run, known, flags, files, tmp_path, capsys
):
    assert predict([f"--model={run}", *flags, *as_flags(files)]) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    volume_mm3 = 8 * np.prod(SPACING_MM)
    assert f"new.nii.gz (1 lesion, {volume_mm3:.0f} mm3)" in printed
    maps = known_maps(SHAPE) > 0.3
    labels = np.where(maps[0], 1, np.where(maps[1], 2, np.where(maps[2], 3, 0)))
    np.testing.assert_array_equal(voxels(files["changes"]), labels)
    np.testing.assert_array_equal(voxels(files["changes"]) == 1, voxels(tmp_path / "new.nii.gz"))
    np.testing.assert_array_equal(voxels(files["lesions01"]), maps[3])
    np.testing.assert_array_equal(voxels(files["lesions02"]), maps[4])
    visit = nib.load(flags[1])
    for path in files.values():
        image = nib.load(path)
        assert image.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(image.affine, visit.affine)
        assert image.header.get_xyzt_units() == visit.header.get_xyzt_units()


def rows_of(page) -> list[list[str]]:
    """Return the cells of the lesion table of a report as text."""
    table = page.read_text().partition('<div class="scroll"><table>')[2].partition("</table>")[0]
    rows = re.findall(r"<tr id=.*?</tr>", table, re.S)
    return [
        [re.sub(r"<.*?>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.S)]
        for row in rows
    ]


def test_the_report_lists_each_class_and_counts_only_new_lesions(run, known, flags, tmp_path):
    page = tmp_path / "page.html"
    assert predict([f"--model={run}", *flags, f"--report={page}"]) == 0
    html, voxel_mm3 = page.read_text(), np.prod(SPACING_MM)

    def mm3(count):
        return f"{count * voxel_mm3:.0f}"

    assert "<strong>1 new lesion</strong>" in html
    others = f"1 enlarging ({mm3(8)} mm3), 1 vanished or shrunk ({mm3(12)} mm3)"
    assert f"Other lesions that changed: {others}." in html
    new, grown, gone = rows_of(page)
    assert [new[:3], grown[:3], gone[:3]] == [
        ["P1", "new", mm3(8)],
        ["E1", "enlarging", mm3(8)],
        ["V1", "vanished or shrunk", mm3(12)],
    ]
    assert new[-1] == f"{mm3(0)}, {mm3(16)} ({16 * voxel_mm3:+.0f})"
    assert grown[-1] == f"{mm3(4)}, {mm3(16)} ({12 * voxel_mm3:+.0f})"
    assert gone[-1] == f"{mm3(20)}, {mm3(0)} ({-20 * voxel_mm3:+.0f})"
    for kind, name in (("prediction", "P1"), ("enlarging", "E1"), ("vanished", "V1")):
        assert re.search(rf'class="outline {kind}"', html)
        assert re.search(rf'class="name {kind}"[^>]*>{name}<', html)
    assert "vanished or shrunk (V)" in html


def test_the_report_of_another_model_has_no_classes(runs, flags, tmp_path):
    page = tmp_path / "page.html"
    assert predict([f"--model={runs[0]}", *flags, f"--report={page}"]) == 0
    body = re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.DOTALL)
    body = body.partition("</style>")[2]
    assert "enlarging" not in body
    assert "vanished" not in body
    assert "prediction (P)" in body


def test_a_data_set_gives_folders_and_done_patients_are_skipped(
    run, patients_root, files, tmp_path, capsys
):
    out = tmp_path / "out"
    flags = [f"--model={run}", f"--dataset={patients_root}", f"--output={out}"]
    folders = {name: tmp_path / name for name in files}
    assert predict(flags) == 0
    before = json.loads((out / "patient_0.json").read_text())
    assert predict([*flags, *as_flags(folders)]) == 0  # not skipped: these are still missing
    names = [f"patient_{k}.nii.gz" for k in range(4)]
    for folder in folders.values():
        assert sorted(path.name for path in folder.iterdir()) == names
    record = json.loads((out / "patient_0.json").read_text())
    assert record["outputs"] == before["outputs"] | {
        name: f"../{name}/patient_0.nii.gz" for name in files
    }
    assert (record["lesions"], record["volume_mm3"]) == (before["lesions"], before["volume_mm3"])
    mask = voxels(out / "patient_0.nii.gz")
    np.testing.assert_array_equal(voxels(folders["changes"] / "patient_0.nii.gz") == 1, mask)
    (folders["lesions02"] / names[1]).unlink()
    capsys.readouterr()
    assert predict([*flags, *as_flags(folders)]) == 0
    assert capsys.readouterr().out.count("mm3), done before\n") == 3
    assert (folders["lesions02"] / names[1]).is_file()


# ---------------------------------------------------------------------------------- from raw scans


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return heads.write_heads(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def prepared(scans, tmp_path_factory):
    return heads.prepare(scans, tmp_path_factory.mktemp("prepared") / "anna")


def balls(shape, affine) -> np.ndarray:
    """Return five maps with one ball each, of 11 mm, at five places of the brain."""
    points = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    middle = nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2)
    places = np.array([(-30, 21, 15), (24, -33, -9), (20, 20, 10), (-24, -30, 5), (0, 0, 25)])
    return np.stack(
        [
            (np.linalg.norm(points - middle - place, axis=-1) < 11).astype(np.float32)
            for place in places
        ]
    )


@pytest.fixture
def coarse(small_config, tmp_path):
    """Return a run on coarse voxels."""
    small_config.data.spacing_mm = 4.0
    small_config.predict.threshold = COARSE_THRESHOLD
    return change_run(tmp_path / "coarse", small_config)


def with_balls(monkeypatch):
    segment = Ensemble.segment

    def segmented(ensemble, patient, pair, *others):
        found = segment(ensemble, patient, pair, *others)
        return replace(found, maps=balls(pair.brain.shape, pair.time01.affine))

    monkeypatch.setattr(Ensemble, "segment", segmented)


def test_all_outputs_of_raw_scans_lie_on_the_grid_of_the_second_scan(
    coarse, scans, prepared, files, tmp_path, monkeypatch
):
    with_balls(monkeypatch)
    page, new = tmp_path / "page.html", tmp_path / "new.nii.gz"
    flags = [f"--model={coarse}", *heads.flags_of(scans), f"--prepare={prepared}", "-o", new]
    assert predict([*flags, *as_flags(files), f"--report={page}"]) == 0
    scan, pair = nib.load(scans / "time02.nii.gz"), nib.load(prepared / layout.TIME01)
    grid = ScannerGrid.of(prepared, scans / "time02.nii.gz")
    expected = [
        grid.bring(ball, pair.affine) > COARSE_THRESHOLD for ball in balls(pair.shape, pair.affine)
    ]
    labels = sum((number + 1) * expected[number] for number in range(3))
    np.testing.assert_array_equal(voxels(new), expected[0])
    np.testing.assert_array_equal(voxels(files["changes"]), labels)
    np.testing.assert_array_equal(voxels(files["lesions01"]), expected[3])
    np.testing.assert_array_equal(voxels(files["lesions02"]), expected[4])
    for path in files.values():
        assert nib.load(path).shape == scan.shape
        np.testing.assert_allclose(nib.load(path).affine, scan.affine)
    voxel_mm3 = np.prod(scan.header.get_zooms())
    for (name, kind, volume_mm3, where, number, centre, *_), mask, place in zip(
        rows_of(page), expected, ("left", "right", "right"), strict=False
    ):
        side = where.split(",")[0]  # the region follows
        assert (name[0], side) == ({"new": "P", "enlarging": "E"}.get(kind, "V"), place)
        assert number == str(mask.sum(axis=(0, 1)).argmax() + 1)
        assert volume_mm3 == f"{mask.sum() * voxel_mm3:.0f}"
        middle = nib.affines.apply_affine(scan.affine, np.argwhere(mask).mean(axis=0))
        np.testing.assert_allclose(np.array(centre.split(", "), float), middle, atol=0.51)
    assert len(rows_of(page)) == 3
    assert re.search(r'class="name vanished"[^>]*>V1<', page.read_text())


def test_a_folder_of_raw_scans_gives_folders_of_all_outputs(
    coarse, scans, prepared, tmp_path, monkeypatch
):
    with_balls(monkeypatch)
    root = tmp_path / "scans" / "anna"
    root.mkdir(parents=True)
    for visit in ("time01", "time02"):
        shutil.copy(scans / f"{visit}.nii.gz", root)
    shutil.copytree(prepared, tmp_path / "out_prepared" / "anna")
    folders = {name: tmp_path / name for name in OUTPUTS}
    flags = [f"--model={coarse}", f"--dataset={root.parent}", f"--output={tmp_path / 'out'}"]
    assert predict([*flags, "--prepare", *as_flags(folders)]) == 0
    scan = nib.load(scans / "time02.nii.gz")
    for folder in folders.values():
        assert nib.load(folder / "anna.nii.gz").shape == scan.shape
    labels = voxels(folders["changes"] / "anna.nii.gz")
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(labels == 1, voxels(tmp_path / "out" / "anna.nii.gz"))


# ------------------------------------------------------------------------------------ in Python


def test_the_functions_give_the_same_as_the_command(run, known, flags, files, tmp_path):
    assert predict([f"--model={run}", *flags, *as_flags(files)]) == 0
    pair = flags[1], flags[3], flags[4].removeprefix("--mask=")
    found = msseg_jax.find_new_lesions(*pair, model=run)
    for name in OUTPUTS:
        np.testing.assert_array_equal(getattr(found, name), voxels(files[name]))
    table = found.lesions
    assert list(table) == list(COLUMNS)
    assert table["class"].tolist() == list(CHANGES[:3])
    np.testing.assert_allclose(table.change_mm3, np.prod(SPACING_MM) * np.array([16, 12, -20]))
    assert str(found).startswith("1 new lesion, ")
    saved = {name: tmp_path / f"saved_{name}.nii.gz" for name in OUTPUTS}
    found.save(tmp_path / "saved.nii.gz", **saved)
    for name in OUTPUTS:
        np.testing.assert_array_equal(voxels(saved[name]), voxels(files[name]))


def test_the_table_of_a_model_of_changes_without_lesions_has_all_columns(run, flags):
    pair = flags[1], flags[3], flags[4].removeprefix("--mask=")
    table = msseg_jax.find_new_lesions(*pair, model=run, threshold=0.9999).lesions
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 0
    assert "change_mm3" in table


# -------------------------------------------------------------------------------------- refusals


def test_a_model_without_a_map_is_named_with_what_it_gives_and_what_is_expected(
    runs, run, small_config, flags, files, tmp_path, capsys
):
    three = change_run(tmp_path / "three_maps", small_config, targets=3)
    for given, name, words in (
        ([runs[0]], "changes", f"--changes: {runs[0]} gives only 1 map: new. Expected at least 3"),
        (
            [runs[0]],
            "lesions02",
            f"--lesions02: {runs[0]} gives only 1 map: new. Expected at least",
        ),
        ([run, three], "lesions01", f"--lesions01: {three} gives only 3 maps: new, enlarging, van"),
    ):
        assert predict([*models(given), *flags, f"--{name}={files[name]}"]) == 1
        error = capsys.readouterr().err
        assert words in error
        assert "config.model.target_set 'changes'" in error
    assert predict([f"--model={three}", *flags, f"--changes={files['changes']}"]) == 0
    assert not files["lesions01"].exists()


def test_the_functions_refuse_to_save_what_the_model_does_not_give(runs, flags, files, tmp_path):
    pair = flags[1], flags[3], flags[4].removeprefix("--mask=")
    found = msseg_jax.find_new_lesions(*pair, model=runs[0])
    assert [getattr(found, name) for name in OUTPUTS] == [None] * 3
    for name, path in files.items():
        with pytest.raises(msseg_jax.InputError, match=f"{name} cannot be saved: .* only 1 map"):
            found.save(tmp_path / "new.nii.gz", **{name: path})
    assert not (tmp_path / "new.nii.gz").exists()


@pytest.mark.parametrize("name", OUTPUTS)
def test_paths_of_further_outputs_are_checked_as_those_of_the_others(
    run, flags, patients_root, name, tmp_path, capsys
):
    visit = patients_root / "patient_0" / layout.TIME02
    before = visit.read_bytes()
    new = tmp_path / "new.nii.gz"
    for path, words in (
        (new, f"--{name} is {new}, the same as --output; expected different paths"),
        (visit, "is an input, so it cannot be an output"),
        (tmp_path / "out.html", "expected a name that ends in .nii"),
        (tmp_path / "missing" / "out.nii.gz" / "x.nii.gz", "x.nii.gz"),
    ):
        if path.name == "x.nii.gz":
            path.parent.parent.write_bytes(b"a file, where a folder is needed")
        assert predict([f"--model={run}", *flags, f"--{name}={path}"]) == 1
        assert words in capsys.readouterr().err
        assert not new.exists()
    assert visit.read_bytes() == before
    folder = [f"--model={run}", f"--dataset={patients_root}", f"--output={tmp_path / 'out'}"]
    for path, words in (
        (tmp_path / "out", "the same as --output; expected different paths"),
        (tmp_path / "maps.nii.gz", "has the name of a file, but with --dataset a folder"),
        (patients_root / "maps", "lies among the patients of --dataset"),
    ):
        assert predict([*folder, f"--{name}={path}"]) == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
