"""The functions that `msseg_jax` exports give what the commands give."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import msseg_jax
from msseg_jax.cli.main import main
from msseg_jax.inference.lesion_table import COLUMNS
from msseg_jax.models.model_file import About, write_model_file
from msseg_jax.models.networks import trained_networks
from msseg_jax.models.reliability import Reliability
from msseg_jax.prepare import libraries
from msseg_jax.prepare import patient as patient_module
from msseg_jax.volumes import layout
from tests.support import heads
from tests.support.runs import save_run


def voxels(path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture
def run(small_config, tmp_path):
    """Return the folder of a run with an untrained network that finds about half of the brain."""
    small_config.predict.threshold = 0.5
    return save_run(tmp_path / "run", small_config)


@pytest.fixture
def pair(patients_root):
    """Return the paths of both visits and of the brain mask of a patient."""
    folder = patients_root / "patient_0"
    return tuple(folder / name for name in (layout.TIME01, layout.TIME02, layout.BRAIN_MASK))


def test_paths_images_and_arrays_give_the_mask_and_the_map_of_the_command(run, pair, tmp_path):
    mask, probability = tmp_path / "mask.nii.gz", tmp_path / "probability.nii.gz"
    flags = [f"--model={run}", f"--probability={probability}", "-o", str(mask)]
    visits = ["-t1", str(pair[0]), "-t2", str(pair[1]), f"--mask={pair[2]}"]
    assert main(["predict", *flags, *visits]) == 0
    assert 0 < voxels(mask).sum() < voxels(pair[2]).sum()

    images = [nib.load(path) for path in pair]
    arrays = [voxels(path) for path in pair]
    affine = images[0].affine
    mixed = (str(pair[0]), images[1], arrays[2] != 0)
    for given, more in ((pair, {}), (images, {}), (arrays, {"affine": affine}),
                        (mixed, {"affine": affine})):  # fmt: skip
        found = msseg_jax.find_new_lesions(*given, model=run, **more)
        np.testing.assert_array_equal(found.mask, voxels(mask))
        np.testing.assert_array_equal(found.probability, voxels(probability))
        np.testing.assert_array_equal(found.affine, affine)


def test_options_replace_those_of_the_model(run, pair):
    model = msseg_jax.load_model(run)
    found = msseg_jax.find_new_lesions(*pair, model=model)
    everything = msseg_jax.find_new_lesions(*pair, model=model, threshold=0.0)
    np.testing.assert_array_equal(everything.mask, found.probability > 0)
    assert everything.mask.sum() > found.mask.sum()
    largest = found.lesions.volume_mm3.iloc[0]
    only = msseg_jax.find_new_lesions(*pair, model=model, min_lesion_mm3=largest)
    assert only.lesions.volume_mm3.min() == largest
    sure = msseg_jax.find_new_lesions(*pair, model=model, min_peak=0.999)
    assert sure.mask.sum() < found.mask.sum()
    with pytest.raises(msseg_jax.InputError, match="threshold is 2"):
        msseg_jax.find_new_lesions(*pair, model=model, threshold=2)


def test_the_table_lists_the_lesions_of_the_mask(run, pair):
    model = msseg_jax.load_model(run)
    probability = msseg_jax.find_new_lesions(*pair, model=model).probability
    threshold = float(np.quantile(probability[voxels(pair[2]) != 0], 0.95))  # several lesions
    found = msseg_jax.find_new_lesions(*pair, model=model, threshold=threshold)
    table = found.lesions
    assert isinstance(table, pd.DataFrame)
    assert list(table) == list(COLUMNS)
    assert set(table["class"]) == {"new"}
    assert set(table.side) <= {"left", "right", "middle"}
    assert table[["right", "of", "volume01_mm3", "change_mm3"]].isna().all(axis=None)
    voxel_mm3 = abs(np.linalg.det(found.affine))
    np.testing.assert_allclose(table.volume_mm3.sum(), found.mask.sum() * voxel_mm3, rtol=1e-5)
    assert table.volume_mm3.is_monotonic_decreasing
    assert (table.mean_probability > threshold).all()
    assert len(table) > 1
    assert str(found).startswith(f"{len(table)} new lesions, ")


def test_without_lesions_the_table_is_empty_and_has_its_columns(run, pair):
    found = msseg_jax.find_new_lesions(*pair, model=run, threshold=0.999)
    assert found.mask.sum() == 0
    assert len(found.lesions) == 0
    assert "volume_mm3" in found.lesions
    assert str(found) == "0 new lesions, 0 mm3"


def test_save_writes_what_it_is_asked_for(runs, pair, tmp_path):
    found = msseg_jax.find_new_lesions(*pair, model=msseg_jax.load_model(*runs))
    files = {name: tmp_path / f"{name}.nii.gz" for name in ("mask", "probability", "uncertainty")}
    found.save(files["mask"])
    assert [file.is_file() for file in files.values()] == [True, False, False]
    found.save(**files, report=tmp_path / "report.html")
    np.testing.assert_array_equal(voxels(files["mask"]), found.mask)
    np.testing.assert_array_equal(voxels(files["probability"]), found.probability)
    np.testing.assert_array_equal(voxels(files["uncertainty"]), found.uncertainty)
    assert found.uncertainty.max() > 0
    assert "new lesion" in (tmp_path / "report.html").read_text()


def test_save_replaces_no_input_and_writes_nothing_if_a_name_is_wrong(run, pair, tmp_path):
    found = msseg_jax.find_new_lesions(*pair, model=run)
    before = pair[1].read_bytes()
    mask = tmp_path / "mask.nii.gz"
    for wrong, more in (
        ({"mask": pair[1]}, "is an input"),
        ({"mask": mask, "probability": pair[0]}, "is an input"),
        ({"mask": mask, "probability": tmp_path / "x" / ".." / "mask.nii.gz"}, "are the same"),
        ({"mask": mask, "uncertainty": tmp_path / "u.nii.gz"}, "only one network"),
        ({"mask": mask, "report": tmp_path / "report.nii.gz"}, "ends in .html"),
        ({"mask": mask, "report": pair[0] / "report.html"}, "cannot be written"),
    ):
        with pytest.raises(msseg_jax.InputError, match=more):
            found.save(**wrong)
    assert pair[1].read_bytes() == before
    assert not mask.exists()


def test_save_protects_the_files_of_images_in_memory_and_from_another_folder(
    run, pair, tmp_path, monkeypatch
):
    monkeypatch.chdir(pair[0].parent)
    images = [nib.load(path) for path in pair]
    relative = [path.name for path in pair]
    found = [msseg_jax.find_new_lesions(*given, model=run) for given in (images, relative)]
    monkeypatch.chdir(tmp_path)
    for one in found:
        for path in pair:
            with pytest.raises(msseg_jax.InputError, match="is an input"):
                one.save(path)


def test_later_changes_of_an_image_do_not_change_the_result(run, pair, tmp_path):
    images = [nib.load(path) for path in pair]
    found = msseg_jax.find_new_lesions(*images, model=run)
    before = found.affine.copy()
    images[0].header.set_xyzt_units("meter")
    images[0].affine[:] = 0
    np.testing.assert_array_equal(found.affine, before)
    found.save(tmp_path / "mask.nii.gz")
    assert nib.load(tmp_path / "mask.nii.gz").header.get_xyzt_units()[0] != "meter"


def test_numbers_of_numpy_are_options(run, pair):
    model = msseg_jax.load_model(run)
    expected = msseg_jax.find_new_lesions(*pair, model=model, threshold=0.25, overlap=4)
    threshold, overlap = np.float32(0.25), np.int64(4)
    found = msseg_jax.find_new_lesions(*pair, model=model, threshold=threshold, overlap=overlap)
    np.testing.assert_array_equal(found.mask, expected.mask)


@pytest.mark.parametrize("model", [["a", "b"], "", 3])
def test_a_model_of_a_wrong_type_is_refused_with_the_right_call(pair, model):
    with pytest.raises(TypeError, match=r"load_model\(first, second\)"):
        msseg_jax.find_new_lesions(*pair, model=model)


def test_all_images_that_cannot_be_used_are_named(run, pair):
    image = voxels(pair[0]).astype(float)
    missing = np.where(image > 0, image, np.nan)
    with pytest.raises(msseg_jax.InputError) as both:
        msseg_jax.find_new_lesions(missing, 2 * missing, affine=np.eye(4), model=run)
    lines = str(both.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["time01", "time02"]
    assert all("NaN or infinite" in line for line in lines)


@pytest.mark.parametrize(
    ("image", "affine", "words"),
    [
        (np.ones((4, 4, 4)), None, "its affine is missing"),
        (np.ones((4, 4, 4)), np.eye(3), "affine is "),
        (np.ones((4, 4, 4)), np.full((4, 4), np.nan), "affine is "),
        (np.ones((4, 4, 4)), np.diag([1.0, 1, 0, 1]), "cannot be inverted"),
        (np.ones((4, 4, 4)), "RAS", "not an array of numbers"),
        (np.ones((4, 4, 4)), np.eye(4, dtype=complex), "not an array of numbers"),
        (np.ones((4, 4, 4)), np.eye(4) + np.eye(4)[::-1], "cannot be inverted"),
        (np.ones((0, 4, 4)), np.eye(4), "no voxels"),
        (nib.Nifti1Image(np.ones((4, 4, 4), np.float32), None), None, "with an affine"),
        (np.ones((4, 4, 4), complex), np.eye(4), "array of complex128"),
        (np.ones((4, 4, 4), object), np.eye(4), "array of object"),
        (np.ma.ones((4, 4, 4)), np.eye(4), "time01 is a masked array"),
        (np.ones((4, 4)), np.eye(4), r"shape \(4, 4\)"),
        ([[[1.0]]], np.eye(4), "time01 is list"),
        (None, np.eye(4), "time01 is NoneType"),
        (nib.MGHImage(np.ones((4, 4, 4), np.float32), np.eye(4)), None, "time01 is MGHImage"),
    ],
)
def test_an_image_of_a_wrong_kind_is_refused_by_name(run, pair, image, affine, words):
    with pytest.raises(msseg_jax.InputError, match=words):
        msseg_jax.find_new_lesions(image, pair[1], affine=affine, model=run)


def test_arrays_of_other_types_give_the_same_and_are_not_changed(run, pair):
    arrays = [np.rint(voxels(path)).astype(np.float32) for path in pair]
    affine = nib.load(pair[0]).affine
    expected = msseg_jax.find_new_lesions(*arrays, affine=affine, model=run).mask
    for dtype in (np.float16, np.float64, np.int16, np.int64):
        others = [np.asfortranarray(array.astype(dtype)) for array in arrays]
        for other in others:
            other.setflags(write=False)
        found = msseg_jax.find_new_lesions(*others, affine=affine.tolist(), model=run)
        np.testing.assert_array_equal(found.mask, expected)


def test_an_image_with_a_file_that_is_gone_is_refused(run, pair, tmp_path):
    copy = tmp_path / "copy.nii.gz"
    copy.write_bytes(pair[0].read_bytes())
    image = nib.load(copy)
    copy.unlink()
    with pytest.raises(msseg_jax.InputError, match="time01: its voxels cannot be read"):
        msseg_jax.find_new_lesions(image, pair[1], model=run)


def test_an_unknown_option_is_refused_with_the_known_ones(run, pair):
    with pytest.raises(TypeError, match="'treshold' is not an option"):
        msseg_jax.find_new_lesions(*pair, model=run, treshold=0.5)


def test_findings_are_short_in_a_notebook(run, pair):
    found = msseg_jax.find_new_lesions(*pair, model=run)
    assert repr(found) == f"<Findings: {found}>"
    assert len(repr(found)) < 80


def test_the_released_weights_are_the_default_and_are_loaded_once(pair, monkeypatch):
    from msseg_jax.api import findings

    loaded = []
    monkeypatch.setattr(findings, "load_model", lambda *models: loaded.append(models) or "model")
    findings._released.cache_clear()
    assert [findings.as_model(None), findings.as_model(None)] == ["model", "model"]
    assert loaded == [()]
    findings._released.cache_clear()
    monkeypatch.undo()
    assert len(msseg_jax.load_model().members) == 3


def test_a_mask_is_scored_as_evaluate_scores_it(patients_root, tmp_path, capsys):
    rng = np.random.default_rng(0)
    reference_file = patients_root / "patient_0" / layout.CONSENSUS
    reference = nib.load(reference_file)
    changed = voxels(reference_file).astype(np.uint8)
    changed[rng.random(changed.shape) < 0.02] ^= 1
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    prediction = nib.Nifti1Image(changed, reference.affine, reference.header)
    nib.save(prediction, predictions / "patient_0.nii.gz")
    out = tmp_path / "out"
    flags = [f"--reference={patients_root}", f"--prediction={predictions}", f"--output={out}"]
    main(["evaluate", *flags, "--no_report"])
    table = pd.read_csv(out / "scores.csv")
    (row,) = table[(table.rater == "prediction") & (table.reference == "consensus")].to_dict(
        "records"
    )
    affine = np.diag([*reference.header.get_zooms(), 1.0])
    for scores in (
        msseg_jax.score_mask(predictions / "patient_0.nii.gz", reference_file),
        msseg_jax.score_mask(prediction, reference),
        msseg_jax.score_mask(changed, voxels(reference_file), affine=affine),
    ):
        for name in scores:
            if name != "group":
                np.testing.assert_allclose(scores[name], row[name], rtol=1e-9, err_msg=name)
        assert 0 < scores["Dice"] < 1


def test_masks_on_two_grids_and_masks_with_other_values_are_refused(patients_root):
    mask = voxels(patients_root / "patient_0" / layout.CONSENSUS)
    with pytest.raises(msseg_jax.InputError) as error:
        msseg_jax.score_mask(2 * mask, mask[1:], affine=np.eye(4))
    assert "prediction" in str(error.value)
    assert "0 and 1" in str(error.value)
    assert "Expected one grid for both" in str(error.value)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Return a folder with two scans of an artificial head."""
    return heads.write_heads(tmp_path_factory.mktemp("scans"))


def test_scans_are_prepared_and_their_lesions_lie_on_the_grid_of_the_second(
    small_config, scans, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(patient_module, "register_visits", heads.known_registration(scans))
    small_config.data.spacing_mm = 4.0
    small_config.predict.threshold = 0.5
    run = save_run(tmp_path / "run", small_config)
    visits = scans / "time01.nii.gz", scans / "time02.nii.gz"
    steps: list[str] = []
    pair = msseg_jax.prepare_scans(*visits, tmp_path / "anna", progress=steps.append)
    assert steps[0] == "reading"
    assert all(file.is_file() for file in (pair.time01, pair.time02, pair.brain_mask, pair.picture))
    found = pair.find_new_lesions(run)
    found.save(tmp_path / "api.nii.gz")

    flags = ["-t1", str(visits[0]), "-t2", str(visits[1]), f"--prepare={tmp_path / 'anna'}"]
    assert main(["predict", *flags, f"--model={run}", "-o", str(tmp_path / "command.nii.gz")]) == 0
    assert "prepared before" in capsys.readouterr().out
    np.testing.assert_array_equal(found.mask, voxels(tmp_path / "command.nii.gz"))
    np.testing.assert_array_equal(voxels(tmp_path / "api.nii.gz"), found.mask)
    assert found.mask.shape == nib.load(visits[1]).shape
    assert 0 < found.mask.sum() < found.mask.size
    assert set(pair.warnings) <= set(found.warnings)
    assert repr(pair) == f"<PreparedScans: {tmp_path / 'anna'}>"

    # All lesions are in the only bin of this table. The rows are those of the scanner's grid.
    of_all = Reliability(
        above_mm3=(0.0,), above_probability=(0.0,), right=((3,),), marked=((10,),), threshold=0.5,
        min_lesion_mm3=0.0, flips=1, pairs="ten pairs",
    )  # fmt: skip
    file = tmp_path / "with_table.safetensors"
    write_model_file(file, About(name="Tiny"), trained_networks(run), of_all)
    table = pair.find_new_lesions(file).lesions
    counts = ["right", "of"]
    pd.testing.assert_frame_equal(table.drop(columns=counts), found.lesions.drop(columns=counts))
    assert set(table["right"]) == {3}
    assert set(table["of"]) == {10}

    before = visits[1].read_bytes()
    with pytest.raises(msseg_jax.InputError, match="is an input"):
        found.save(visits[1])
    with pytest.raises(msseg_jax.InputError, match="lies in"):
        found.save(tmp_path / "anna" / "new.nii.gz")
    assert visits[1].read_bytes() == before
    (tmp_path / "anna" / "mask.nii.gz").write_bytes(pair.brain_mask.read_bytes())
    masks = (tmp_path / "anna" / "mask.nii.gz", None)
    with pytest.raises(msseg_jax.InputError, match="is an input, but lies in"):
        msseg_jax.prepare_scans(*visits, tmp_path / "anna", brain_masks=masks, overwrite=True)
    assert (tmp_path / "anna" / "mask.nii.gz").is_file()
    for wrong in ({"series": 3}, {"series": ("1", "2", "3")}, {"brain_masks": "mask.nii.gz"}):
        with pytest.raises(msseg_jax.InputError, match="Expected a"):
            msseg_jax.prepare_scans(*visits, tmp_path / "b", **wrong)
    with pytest.raises(msseg_jax.InputError, match="both given"):
        msseg_jax.prepare_scans(
            *visits, tmp_path / "b", brain_masks=(visits[0], None), brain_mask_command="x {input}"
        )


def test_missing_libraries_for_scans_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, "LIBRARIES", ("no_such_library",))
    assert "prepare_scans" in dir(msseg_jax)
    with pytest.raises(msseg_jax.InputError, match=r"no_such_library.*pip install"):
        msseg_jax.prepare_scans("a.nii.gz", "b.nii.gz", tmp_path / "anna")


def test_the_functions_can_be_imported_without_the_libraries_for_scans():
    code = (
        "import sys; sys.modules['SimpleITK'] = None; sys.modules['nilearn'] = None\n"
        "from msseg_jax import *; print(prepare_scans.__name__, find_new_lesions.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "prepare_scans find_new_lesions"


def test_importing_msseg_jax_imports_nothing_heavy_and_unknown_names_are_reported():
    code = "import sys, msseg_jax; print(sorted({'jax', 'numpy', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert set(msseg_jax.__all__) <= set(dir(msseg_jax))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        msseg_jax.nonsense  # noqa: B018
