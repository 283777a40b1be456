"""`msseg predict --prepare`: masks of raw scans, on the grid of the second scan."""

import json
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from msseg_jax.cli import prediction
from msseg_jax.cli.main import main
from msseg_jax.data.quality import Quality
from msseg_jax.inference import scans as scans_module
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.scans import warnings_of
from msseg_jax.prepare.images import affine_of, array_of
from msseg_jax.prepare.record import read_record
from msseg_jax.prepare.registration import on_grid
from msseg_jax.prepare.scanner_grid import ScannerGrid
from msseg_jax.system.errors import InputError
from msseg_jax.volumes import layout
from msseg_jax.volumes.alignment import Alignment
from tests.support import heads
from tests.support.dicom import TURNED, write_series
from tests.support.runs import save_run

PROGRAM = "msseg predict"
LPS = np.array([-1.0, -1.0, 1.0])  # factors between coordinates of NIfTI (RAS) and of ITK (LPS)
# Files of the patient anna in the folder of the masks, and those of the whole folder.
RESULTS = [
    "anna.json", "anna.nii.gz", "anna_lesions.csv", "anna_lesions.nii.gz", "index.html",
    "lesions.csv", "patients.csv",
]  # fmt: skip


def predict(flags):
    return main(["predict", *flags])


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return heads.write_heads(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def prepared(scans, tmp_path_factory):
    return heads.prepare(scans, tmp_path_factory.mktemp("prepared") / "anna")


@pytest.fixture
def run(small_config, tmp_path):
    """Return a run with an untrained network on coarse voxels. It marks about half of the brain."""
    small_config.data.spacing_mm = 4.0
    small_config.predict.threshold = 0.5
    return save_run(tmp_path / "run", small_config)


@pytest.fixture
def root(scans, tmp_path):
    """Return a folder of raw scans, with one patient."""
    copy_scans(scans, tmp_path / "scans" / "anna")
    return tmp_path / "scans"


def copy_scans(scans, folder):
    folder.mkdir(parents=True)
    for visit in ("time01", "time02"):
        shutil.copy(scans / f"{visit}.nii.gz", folder)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def voxels(path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


# ------------------------------------------------------------------------------ written files


def test_a_pair_is_prepared_and_the_mask_lies_on_the_grid_of_the_scan(
    run, scans, prepared, tmp_path, capsys
):
    output, in_middle = tmp_path / "new.nii.gz", tmp_path / "new_on_middle_space.nii.gz"
    probability = tmp_path / "probability.nii.gz"
    flags = [
        f"--model={run}",
        *heads.flags_of(scans),
        f"--output={output}",
        f"--prepare={prepared}",
    ]
    assert predict([*flags, f"--probability={probability}"]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert f"prepared before: {prepared / 'prepare.png'} shows whether the visits match" in lines
    ml = round(voxels(output).sum() * np.prod(nib.load(output).header.get_zooms()))
    lesions = ndimage.label(voxels(output))[1]
    counted = f"{lesions} lesion{'' if lesions == 1 else 's'}, {ml} mm3"
    assert re.fullmatch(rf"mask: {re.escape(str(output))} \({counted}\), [\d.]+ s", lines[-1])
    assert printed.count("mm3)") == 1  # one count
    scan = nib.load(scans / "time02.nii.gz")
    np.testing.assert_allclose(nib.load(output).affine, scan.affine)
    assert nib.load(output).shape == nib.load(probability).shape == scan.shape
    pair = nib.load(prepared / layout.TIME01)
    np.testing.assert_allclose(nib.load(in_middle).affine, pair.affine)
    assert 100 < voxels(in_middle).sum() * 8 / 1000 < 1400  # ml: a part of the brain, not all of it
    # At the same points, both masks agree except at the borders of lesions.
    on_scanner, mask = heads.read(output), heads.read(in_middle)
    to_scan = sitk.ReadTransform(str(prepared / "transforms" / "middle_to_time02.txt"))
    assert heads.dice(on_scanner, on_grid(mask > 0, on_scanner, to_scan.GetInverse())) > 0.85


def test_masks_of_a_data_set_can_be_scored_on_the_grid_of_the_prepared_pairs(
    run, root, prepared, tmp_path, capsys
):
    pairs, masks = tmp_path / "out_prepared", tmp_path / "out_on_middle_space"
    shutil.copytree(prepared, pairs / "anna")  # the default folder of prepared pairs
    flags = [f"--model={run}", f"--dataset={root}", f"--output={tmp_path / 'out'}", "--prepare"]
    assert predict(flags) == 0
    assert names_in(tmp_path / "out") == RESULTS
    assert [path.name for path in masks.iterdir()] == ["anna.nii.gz"]
    shutil.copy(masks / "anna.nii.gz", pairs / "anna" / layout.CONSENSUS)
    capsys.readouterr()
    scores = [f"--reference={pairs}", f"--prediction={masks}", f"--output={tmp_path / 'scores'}"]
    assert main(["evaluate", *scores, "--no_report"]) == 0
    assert "anna     1.000  1.000" in capsys.readouterr().out

    # A patient is skipped only if both masks exist.
    assert predict(flags) == 0
    assert "mm3), done before\n" in capsys.readouterr().out
    (masks / "anna.nii.gz").unlink()
    assert predict(flags) == 0
    assert "done before" not in capsys.readouterr().out
    assert (masks / "anna.nii.gz").is_file()


def test_default_folders_are_named_after_the_working_folder(
    run, root, prepared, tmp_path, monkeypatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(prepared, tmp_path / "here_prepared" / "anna")
    assert predict([f"--model={run}", f"--dataset={root}", "--output=.", "--prepare"]) == 0
    assert names_in(tmp_path / "here") == RESULTS
    assert (tmp_path / "here_on_middle_space" / "anna.nii.gz").is_file()


OUTSIDE = "57 ml of the brain lie outside one visit's field of view."


def test_warnings_of_the_preparation_name_the_patient_of_a_data_set(
    run, root, prepared, tmp_path, capsys
):
    pairs = tmp_path / "pairs"
    for name in ("anna", "berta"):
        shutil.copytree(prepared, pairs / name)
    copy_scans(root / "anna", root / "berta")
    file = pairs / "berta" / "prepare.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"warnings": [OUTSIDE]}))
    flags = [f"--model={run}", f"--dataset={root}", f"--output={tmp_path / 'out'}"]
    assert predict([*flags, f"--prepare={pairs}"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "57 ml" in line] == [f"WARNING: berta: {OUTSIDE}"]


def test_warnings_of_the_preparation_are_printed_and_reported_once(
    run, scans, prepared, tmp_path, capsys
):
    folder, page = tmp_path / "anna", tmp_path / "page.html"
    shutil.copytree(prepared, folder)
    record = json.loads((folder / "prepare.json").read_text())
    record["warnings"] = [OUTSIDE]
    record["registration"]["correlation"] = 0.8768
    (folder / "prepare.json").write_text(json.dumps(record))
    flags = [f"--model={run}", *heads.flags_of(scans), f"--output={tmp_path / 'new.nii.gz'}"]
    assert predict([*flags, f"--prepare={folder}", f"--report={page}"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("57 ml of the brain lie outside") == 1
    assert "WARNING: anna: 57 ml of the brain lie outside" in printed
    html = page.read_text()
    assert html.count("57 ml of the brain lie outside") == 1
    assert f"{scans / 'time01.nii.gz'} and {scans / 'time02.nii.gz'}" in html
    # Only with its quantity: under the picture of the alignment, and in the list of facts.
    assert html.count("correlation") == html.count("correlation of") == 2
    assert "correlation of edges" in html
    assert html.count(f"({record['brain']['ml']:.0f} ml)") == 1


def lesions_in(mask: Path) -> list[tuple[np.ndarray, float]]:
    """Return the centre (scanner mm) and volume (mm3) of each lesion of a file, largest first."""
    image = nib.load(mask)
    labels, count = ndimage.label(np.asarray(image.dataobj))
    centres = ndimage.center_of_mass(labels > 0, labels, range(1, count + 1))
    voxels = np.bincount(labels.ravel())[1:]
    volume_mm3 = np.prod(image.header.get_zooms())
    centres_mm = nib.affines.apply_affine(image.affine, centres)
    found = list(zip(centres_mm, voxels * volume_mm3, strict=True))
    return sorted(found, key=lambda lesion: -lesion[1])


def balls(shape, affine) -> np.ndarray:
    """Return a probability map with a large lesion on the left and a small one on the right."""
    indices = np.moveaxis(np.indices(shape), 0, -1)
    points = nib.affines.apply_affine(affine, indices)
    middle = nib.affines.apply_affine(affine, (np.array(shape) - 1) / 2)
    centres = middle + np.array([(-30.0, 21.0, 15.0), (24.0, -33.0, -9.0)])
    far_mm = [np.linalg.norm(points - centre, axis=-1) for centre in centres]
    return ((far_mm[0] < 11) | (far_mm[1] < 6)).astype(np.float32)


def test_the_report_describes_the_mask_on_the_grid_of_the_scan(
    run, scans, prepared, tmp_path, monkeypatch
):
    segment = Ensemble.segment

    def segmented(ensemble, patient, pair, *others):
        probability = balls(pair.brain.shape, pair.time01.affine)
        return replace(segment(ensemble, patient, pair, *others), maps=probability[None])

    monkeypatch.setattr(Ensemble, "segment", segmented)
    mask, page = tmp_path / "new.nii.gz", tmp_path / "page.html"
    flags = [f"--model={run}", *heads.flags_of(scans), f"--output={mask}", f"--report={page}"]
    assert predict([*flags, f"--prepare={prepared}"]) == 0
    html, lesions = page.read_text(), lesions_in(mask)
    assert len(lesions) == 2
    assert "<strong>2 new lesions</strong>" in html
    assert f"{sum(volume_mm3 for _, volume_mm3 in lesions):.0f} mm3 (" in html
    row = (
        r'</span><a href="#patient-card-P(\d)">P\1</a></td>\s*<td>(\d+)</td>'
        r'<td class="text place">(\w+).*?</td>\s*<td><a [^>]*>\d+</a></td>\s*<td>(.+?)</td>'
    )
    to_scan = sitk.ReadTransform(str(prepared / "transforms" / "middle_to_time02.txt"))
    rows = re.findall(row, html)
    for (centre, volume_mm3), (_, written_mm3, _, written) in zip(lesions, rows, strict=True):
        assert written_mm3 == f"{volume_mm3:.0f}"
        written_mm = np.array(written.split(", "), float)
        assert np.abs(written_mm - centre).max() <= 0.5  # rounded to whole mm; voxels are 2 mm
        in_middle = to_scan.GetInverse().TransformPoint((centre * LPS).tolist())
        # Half of the motion lies between the scan and the middle space.
        assert np.linalg.norm(written_mm - in_middle * LPS) > 4
    assert [(name, side) for name, _, side, _ in rows] == [("1", "left"), ("2", "right")]
    assert re.search(r'class="name prediction"[^>]*>P1<', html)
    title = html.split("<title>")[1].split("</title>")[0]
    assert "/time01.nii.gz, " in title
    assert title.endswith("/time02.nii.gz")
    assert f"measured in {mask.name}, the mask on the original grid" in html
    assert str(tmp_path / "new_on_middle_space.nii.gz") in html
    assert not re.search(
        r"slice \d+, z = ", html
    )  # slices of the middle space have no height in the scan


def test_lesions_are_drawn_in_the_middle_space_at_their_listed_positions(scans, prepared):
    grid = ScannerGrid.of(prepared, scans / "time02.nii.gz")
    pair = nib.load(prepared / layout.BRAIN_MASK)
    middle = np.array(pair.shape) // 2
    blob, speck = middle + np.array([(10, -8, 6), (-12, -9, -7)])
    to_voxel = np.linalg.inv(grid.like.affine)
    points = nib.affines.apply_affine(pair.affine, [blob, speck])
    to_scan = sitk.ReadTransform(str(prepared / "transforms" / "middle_to_time02.txt"))
    there = [to_scan.TransformPoint(p) for p in (points * LPS).tolist()]
    places = nib.affines.apply_affine(to_voxel, np.multiply(there, LPS))
    labels = np.zeros(grid.like.array.shape, np.int32)
    i, j, k = np.rint(places[0]).astype(int)
    labels[i - 3 : i + 4, j - 3 : j + 4, k - 3 : k + 4] = 1
    labels[tuple(np.rint(places[1]).astype(int))] = 2
    # Voxels of 6 mm: most of their centres miss the lesion of one voxel.
    coarse = pair.affine @ np.diag([3, 3, 3, 1])
    for shape, affine, side in ((pair.shape, pair.affine, 1), ((40, 40, 40), coarse, 3)):
        drawn = grid.draw_in_middle(labels, shape, affine)
        assert set(np.unique(drawn)) == {0, 1, 2}
        for number, expected in ((1, blob), (2, speck)):
            centre = np.argwhere(drawn == number).mean(axis=0)
            assert np.abs(centre - np.array(expected) / side).max() <= 1
    assert (drawn == 2).sum() == 1
    np.testing.assert_allclose(
        grid.points_in_middle(np.array(np.multiply(there, LPS))), points, atol=1e-6
    )


@pytest.mark.parametrize(
    ("apart_mm", "warnings", "beginning"),
    [(0.4, [], "The visits lie 1.3 mm apart"), (1.4, ["They lie 1.4 mm apart"], "They lie 1.4")],
)
def test_the_distance_between_the_visits_is_reported_once(prepared, apart_mm, warnings, beginning):
    record = read_record(prepared / "prepare.json")
    registration = record.registration.model_copy(update={"apart_mm": apart_mm})
    record = record.model_copy(update={"warnings": tuple(warnings), "registration": registration})
    quality = Quality(Alignment(1.3, 0.98), 1300.0, None)
    (warning,) = warnings_of(record, quality)
    assert warning.startswith(beginning)


def test_a_scanner_grid_holds_no_voxels_of_the_scan(scans, prepared):
    scan = nib.load(scans / "time02.nii.gz")
    grid = ScannerGrid.of(prepared, scans / "time02.nii.gz")
    assert grid.like.array.shape == scan.shape
    assert grid.like.array.strides == (0, 0, 0)  # a single number, broadcast
    np.testing.assert_array_equal(grid.like.affine, scan.affine)
    assert grid.like.header.get_xyzt_units() == scan.header.get_xyzt_units()


def test_an_identity_transform_returns_a_map_of_a_dicom_series_unchanged(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 100, size=(20, 12, 16)).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((5.0, 6.0, 4.0))
    image.SetOrigin((-20.5, 30.0, 7.25))
    image.SetDirection(TURNED)
    series = write_series(tmp_path / "series", image)
    (tmp_path / "transforms").mkdir()
    still = sitk.Euler3DTransform()
    sitk.WriteTransform(still, str(tmp_path / "transforms" / "middle_to_time02.txt"))
    grid = ScannerGrid.of(tmp_path, series)
    np.testing.assert_allclose(grid.like.affine, affine_of(image), atol=1e-4)
    there = grid.bring(array_of(image), affine_of(image))
    np.testing.assert_allclose(there[:-1, :-1, :-1], array_of(image)[:-1, :-1, :-1], atol=0.01)


def test_the_grid_of_a_scan_is_read_only_when_its_patient_is_processed(
    run, scans, root, prepared, tmp_path, monkeypatch
):
    output, of, there = tmp_path / "out", ScannerGrid.of, {}

    def noted(folder, *others):
        there[folder.name] = sorted(path.name for path in output.iterdir())
        return of(folder, *others)

    monkeypatch.setattr(ScannerGrid, "of", noted)
    copy_scans(scans, root / "bert")
    for name in ("anna", "bert"):
        shutil.copytree(prepared, tmp_path / "pairs" / name)
    flags = [f"--model={run}", f"--dataset={root}", f"--output={output}"]
    assert predict([*flags, f"--prepare={tmp_path / 'pairs'}"]) == 0
    assert there == {"anna": [], "bert": RESULTS[:4]}


# ------------------------------------------------------------------------------- refused input


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--brain_mask01=a.nii.gz"], "--brain_mask01 needs --prepare"),
        (["--acquisition=2"], "--acquisition needs --prepare"),
        (["--allow_reversed"], "--allow_reversed needs --prepare"),
        (["--prepare", "--mask=a.nii.gz"], "--mask is for a pair on one grid"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(scans, capsys, more, message):
    with pytest.raises(SystemExit):
        predict(["--model=run", *heads.flags_of(scans), "--output=new.nii.gz", *more])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        # The mask on the middle space would have the name of an input.
        (["-o", "flair_time01.nii.gz"], "flair_time01_on_middle_space.nii.gz: is an input"),
        (["-o", "new.nii.gz", "--brain_mask01=new_on_middle_space.nii.gz"], "is an input"),
        (["-o", "new.nii.gz", "--brain_mask02=new.nii.gz"], "new.nii.gz: is an input"),
        (
            ["-o", "new.nii.gz", "--probability=new_on_middle_space.nii.gz"],
            "new_on_middle_space.nii.gz, the same as --probability; expected different paths",
        ),
        (["-o", "pair/new.nii.gz", "--prepare=pair"], "pair/new.nii.gz: lies in pair, the folder"),
        (["-o", "new.nii.gz", "--prepare=."], "new.nii.gz: lies in ., the folder of "),
        (["-o", "new.nii.gz", "--prepare=pair", "-t1", "pair/a.nii"], "pair/a.nii: is an input, "),
    ],
)
def test_unsuitable_paths_for_a_pair_are_refused(run, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pair").mkdir()
    first = tmp_path / layout.TIME01
    first.write_bytes(b"years of work")
    given = " ".join(more)
    first_scan = [] if "-t1" in more else ["-t1", first.name]
    prepare = [] if "--prepare" in given else ["--prepare"]
    flags = [f"--model={run}", *first_scan, "-t2", "b.nii.gz", *prepare, *more]
    assert predict(flags) == 1
    assert message in capsys.readouterr().err
    assert first.read_bytes() == b"years of work"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--prepare=scans/pairs"], "scans/pairs: lies among the patients of --dataset"),
        (["--prepare=scans"], "scans: lies among the patients of --dataset"),
        (["--prepare", "-o", "scans/out"], "scans/out: lies among the patients of --dataset"),
        (["--prepare=out"], "out: lies in out, the folder of the prepared pair"),
        (["--prepare=pairs", "--report=pairs/pages"], "pairs/pages: lies in pairs, the folder"),
        (
            ["--prepare", "--uncertainty=out_on_middle_space"],
            "is out_on_middle_space, the same as --uncertainty; expected different paths",
        ),
        (["--prepare=file/pairs"], "cannot be written"),
    ],
)
def test_unsuitable_paths_for_a_data_set_are_refused(
    run, root, tmp_path, capsys, monkeypatch, more, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    output = [] if "-o" in more else ["--output=out"]
    assert predict([f"--model={run}", "--dataset=scans", *output, *more]) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in root.iterdir()] == ["anna"]


# ------------------------------------------------------------------- errors during the work


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("many", [False, True])
def test_overwrite_also_prepares_pairs_again(
    run, scans, root, prepared, tmp_path, monkeypatch, overwrite, many
):
    asked = []

    def prepare_patient(request, folder, overwrite, say):
        asked.append((folder, overwrite))
        raise InputError("that is all")

    monkeypatch.setattr(scans_module, "prepare_patient", prepare_patient)
    places = [f"--dataset={root}", "-o", tmp_path / "out"]
    if not many:
        places = [*heads.flags_of(scans), "-o", tmp_path / "new.nii.gz"]
    flags = [f"--model={run}", *map(str, places), f"--prepare={tmp_path / 'pairs'}"]
    assert predict([*flags, *["--overwrite"] * overwrite]) == 1
    assert asked == [(tmp_path / "pairs" / "anna" if many else tmp_path / "pairs", overwrite)]


def test_a_pair_that_cannot_be_prepared_does_not_stop_the_others(
    run, scans, root, prepared, tmp_path, capsys, monkeypatch
):
    wrong = {
        "adam": RuntimeError("Exception thrown in SimpleITK"),
        "bert": OSError("No space left on device"),
        "carl": InputError("the brain mask holds 3 ml"),
    }
    for name in wrong:
        copy_scans(scans, root / name)
    prepare_patient = scans_module.prepare_patient

    def prepare_some(request, folder, *others):
        if folder.name in wrong:
            raise wrong[folder.name]
        return prepare_patient(request, folder, *others)

    monkeypatch.setattr(scans_module, "prepare_patient", prepare_some)
    shutil.copytree(prepared, tmp_path / "out_prepared" / "anna")
    flags = [f"--model={run}", f"--dataset={root}", f"--output={tmp_path / 'out'}", "--prepare"]
    assert predict(flags) == 1
    assert names_in(tmp_path / "out") == RESULTS
    assert capsys.readouterr().err.endswith(
        "3 of 4 patients failed:\n"
        "  adam: RuntimeError: Exception thrown in SimpleITK\n"
        "  bert: OSError: No space left on device\n"
        "  carl: the brain mask holds 3 ml\n"
    )


def test_sigterm_while_preparing_leaves_no_incomplete_files(run, root, tmp_path):
    pairs = tmp_path / "out_prepared"
    flags = [f"--model={run}", f"--dataset={root}", f"--output={tmp_path / 'out'}", "--prepare"]
    status, error = heads.stop_when(
        lambda: pairs.is_dir() and bool(list(pairs.iterdir())), "msseg_jax", "predict", *flags
    )
    assert status == 1
    assert error == f"{PROGRAM}: Interrupted. Run the same command again to resume.\n"
    assert list(pairs.iterdir()) == list((tmp_path / "out").iterdir()) == []


def test_sigterm_counts_as_ctrl_c_except_for_one_pair_on_one_grid(
    run, scans, prepared, patients_root, tmp_path, monkeypatch, capsys
):
    during = []

    def interrupted(*_, **__):
        during.append(signal.getsignal(signal.SIGTERM))
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(prediction, "Ensemble", interrupted)
    patient = patients_root / "patient_0"
    on_one_grid = ["-t1", str(patient / layout.TIME01), "-t2", str(patient / layout.TIME02)]
    many, output = [f"--dataset={patients_root}"], tmp_path / "new.nii.gz"
    for scan_flags, place in (
        ([*heads.flags_of(scans), f"--prepare={prepared}"], output),
        (many, tmp_path / "many"),
        (on_one_grid, output),
    ):
        assert predict([f"--model={run}", *scan_flags, f"--output={place}"]) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == f"{PROGRAM}: Interrupted. Run the same command again to resume."
        assert signal.getsignal(signal.SIGTERM) == before
    assert during == [signal.default_int_handler, signal.default_int_handler, before]
