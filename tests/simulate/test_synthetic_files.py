"""Making a synthetic data set for training from folders of scans and masks."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from msseg_jax.cli.main import main as command
from msseg_jax.data.split import groups_of
from msseg_jax.simulate.synthetic import marks, writer
from msseg_jax.simulate.synthetic import source as source_module
from msseg_jax.simulate.synthetic.source import Files, find_sources, read_source
from msseg_jax.simulate.synthetic.writer import SyntheticRequest, write_synthetic
from msseg_jax.system.errors import InputError
from msseg_jax.volumes import layout
from msseg_jax.volumes.layout import find_patients
from msseg_jax.volumes.pair import read_pair
from tests.support.brains import MNI_SHIFT_MM, make_source
from tests.support.heads import read, write_heads


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return paths[0]


@pytest.fixture
def masks(tmp_path):
    """Write one mask in MNI space: three cubes of 216 mm3 around the middle of `brains`."""
    folder = tmp_path / "masks"
    folder.mkdir()
    array = np.zeros((120, 120, 120), np.uint8)
    for centre in ((28, 0, 0), (-28, 0, 0), (0, 30, 0)):
        i, j, k = np.add(60 + MNI_SHIFT_MM, centre).astype(int)
        array[i - 3 : i + 3, j - 3 : j + 3, k - 3 : k + 3] = 1
    affine = nib.affines.from_matvec(np.eye(3), (-60, -60, -60))
    nib.save(nib.Nifti1Image(array, affine), folder / "anna.nii.gz")
    return folder


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """Write two empty scans. `read_source` is patched to return a ball for each."""
    monkeypatch.setattr(
        writer,
        "read_source",
        lambda files, find_brain: make_source((3.0, 3.0, 3.0), 0.02, files.name),
    )
    folder = tmp_path / "scans"
    touch(folder / "bea.nii.gz", folder / "carl" / "FLAIR.nii.gz")
    return folder


def main(flags: list[str]) -> int:
    return command(["synthetic", *flags])


def write_all(request) -> list[dict]:
    """Write all pairs, check that no scan failed, and return the records of the pairs."""
    records, failures = write_synthetic(request)
    assert failures == {}
    return records


def request(scans, masks, output, **fields):
    return SyntheticRequest((scans,), (masks,), output, **{"pairs": 2, "jobs": 1} | fields)


def test_scans_and_pairs_are_found_with_their_masks(tmp_path):
    touch(
        tmp_path / "anna.nii.gz",
        tmp_path / "bea" / "FLAIR.nii.gz",
        tmp_path / "bea" / "brain_mask.nii.gz",
        tmp_path / "bea" / "lesion_mask_mni.nii.gz",
        tmp_path / "bea" / "normal_hyperintensity.nii.gz",
        tmp_path / "bea" / "ventricles.nii.gz",  # is ignored
        tmp_path / "carl" / layout.TIME01,
        tmp_path / "carl" / layout.TIME02,
        tmp_path / "carl" / "change_mask.nii.gz",
        tmp_path / "carl" / layout.CONSENSUS,
        tmp_path / "notes.txt",
    )
    anna, bea, carl = find_sources(tmp_path)
    assert anna == Files("anna", (tmp_path / "anna.nii.gz",))
    folder = tmp_path / "bea"
    assert bea == Files(
        "bea", (folder / "FLAIR.nii.gz",), folder / "brain_mask.nii.gz",
        folder / "lesion_mask_mni.nii.gz",
        normal_mask=folder / "normal_hyperintensity.nii.gz",
    )  # fmt: skip
    assert len(bea.all) == 4
    assert [path.name for path in carl.scans] == [layout.TIME01, layout.TIME02]
    assert carl.change_mask == tmp_path / "carl" / "change_mask.nii.gz"


def test_every_unusable_folder_is_named_in_the_error(tmp_path):
    touch(
        tmp_path / "anna" / "one.nii.gz",
        tmp_path / "anna" / "two.nii.gz",
        tmp_path / "bea" / layout.TIME01,
        tmp_path / "bea" / layout.TIME02,
        tmp_path / "carl" / "FLAIR.nii.gz",
        tmp_path / "carl" / "brain_mask.nii.gz",
        tmp_path / "carl" / "brain_mask2.nii.gz",
    )
    with pytest.raises(InputError) as error:
        find_sources(tmp_path)
    one, two, three = str(error.value).splitlines()
    assert "anna: the folder contains 2 scans" in one
    assert "one.nii.gz, two.nii.gz" in one
    assert "bea: this pair has no change_mask.nii.gz" in two
    assert "carl: the names of 2 files begin with brain_mask" in three
    with pytest.raises(InputError, match="no such folder"):
        find_sources(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="the folder contains no scan"):
        find_sources(tmp_path / "empty")


def test_a_data_set_is_written_in_the_layout_that_training_reads(scans, masks, tmp_path):
    output = tmp_path / "root"
    records = write_all(request(scans, masks, output))
    patients = find_patients(output, targets=1)
    names = ["bea_000", "bea_001", "carl_000", "carl_001"]
    assert [patient.name for patient in patients] == names
    assert [record["patient"] for record in records] == names
    for patient, record in zip(patients, records, strict=True):
        pair = read_pair(patient)
        assert (pair.targets.sum() > 0) == (record["new_lesions"] > 0)
        stored = json.loads((output / patient.name / layout.SYNTHETIC).read_text())
        assert {"patient": patient.name} | stored == record
    assert groups_of(patients) == [[0, 1], [2, 3]]
    assert {path.name for path in output.iterdir()} == set(names), "no temporary files remain"


def test_pairs_do_not_depend_on_the_number_of_pairs_or_on_other_scans(scans, masks, tmp_path):
    write_synthetic(request(scans, masks, tmp_path / "two"))
    write_synthetic(request(scans, masks, tmp_path / "one", pairs=1, leave_out=("bea",)))
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["carl_000"]
    for file in (tmp_path / "one" / "carl_000").glob("*.nii.gz"):
        assert file.read_bytes() == (tmp_path / "two" / "carl_000" / file.name).read_bytes()


@pytest.mark.parametrize("known", [True, False])
def test_the_maps_of_all_lesions_are_written_if_they_are_known(
    scans, masks, tmp_path, monkeypatch, known
):
    source = replace(make_source((3.0, 3.0, 3.0), 0.02, "bea"), lesions_known=known)
    monkeypatch.setattr(writer, "read_source", lambda *_: source)
    output = tmp_path / "root"
    write_all(request(scans, masks, output, pairs=1, leave_out=("carl",)))
    maps = {layout.CONSENSUS, marks.ENLARGING, marks.VANISHED}
    of_all = {marks.LESIONS01, marks.LESIONS02}
    folder = output / "bea_000"
    files = {path.name for path in folder.glob("*.nii.gz")}
    images = {layout.TIME01, layout.TIME02, layout.BRAIN_MASK}
    assert files == images | maps | (of_all if known else set())
    volumes = {name: nib.load(folder / name) for name in files}
    for name in files - images:
        assert volumes[name].get_data_dtype() == np.uint8
        assert set(np.unique(volumes[name].get_fdata())) <= {0, 1}
        np.testing.assert_array_equal(volumes[name].affine, volumes[layout.TIME01].affine)
    if known:  # all lesions that are new or have grown are lesions of the second visit
        for name, within in (
            (layout.CONSENSUS, marks.LESIONS02), (marks.ENLARGING, marks.LESIONS02),
            (marks.VANISHED, marks.LESIONS01),
        ):  # fmt: skip
            assert (volumes[name].get_fdata() <= volumes[within].get_fdata()).all(), name


def test_a_mask_that_is_left_out_is_not_read(scans, masks, tmp_path):
    (masks / "dora.nii.gz").write_text("damaged")
    with pytest.raises(InputError, match=r"dora\.nii\.gz"):
        write_synthetic(request(scans, masks, tmp_path / "root"))
    assert write_all(request(scans, masks, tmp_path / "root", leave_out=("dora",)))


def test_leaving_out_an_unknown_name_is_an_error(scans, masks, tmp_path):
    with pytest.raises(InputError, match=r"--leave_out=Bea: no scan .*: anna, bea, carl$"):
        write_synthetic(request(scans, masks, tmp_path / "root", leave_out=("Bea",)))


def test_scan_and_mask_with_the_same_name_are_left_out_together(scans, masks, tmp_path):
    touch(scans / "eva.2.nii.gz")
    (masks / "eva.2.nii.gz").write_text("damaged")  # it would be an error to read it
    records = write_all(request(scans, masks, tmp_path / "root", leave_out=("eva.2",)))
    assert {record["source"] for record in records} == {"bea", "carl"}
    assert all(record["left_out"] == ["eva.2"] for record in records)


def test_leaving_out_a_scan_without_a_mask_of_its_name_gives_a_warning(
    scans, masks, tmp_path, caplog
):
    """The mask of a test patient may have another name, and would then be used for training."""
    write_all(request(scans, masks, tmp_path / "root", leave_out=("bea",)))
    (warning,) = caplog.messages
    assert warning.startswith("--leave_out=bea: no mask has this name")


def test_pairs_of_the_other_scans_are_kept_after_a_scan_is_left_out(scans, masks, tmp_path):
    write_all(request(scans, masks, tmp_path / "root"))
    for k in range(2):
        shutil.rmtree(tmp_path / "root" / f"bea_{k:03d}")
    records = write_all(request(scans, masks, tmp_path / "root", leave_out=("bea",)))
    assert [record["patient"] for record in records] == ["carl_000", "carl_001"]


def test_existing_pairs_made_from_other_files_are_refused(scans, masks, tmp_path):
    write_all(request(scans, masks, tmp_path / "root"))
    (scans / "bea.nii.gz").write_bytes(b"another scan")
    with pytest.raises(
        InputError,
        match=r"bea_000 does not match this request \(the input files have changed\)",
    ):
        write_synthetic(request(scans, masks, tmp_path / "root"))


def test_existing_pairs_that_are_not_requested_are_refused(scans, masks, tmp_path):
    output = tmp_path / "root"
    write_synthetic(request(scans, masks, output))
    with pytest.raises(
        InputError, match="also contains bea_000, which is not one of the requested pairs"
    ):
        write_synthetic(request(scans, masks, output, leave_out=("bea",), overwrite=True))


def test_a_folder_not_made_by_this_program_is_never_replaced(scans, masks, tmp_path):
    note = touch(tmp_path / "root" / "bea_000" / "notes.txt")
    with pytest.raises(InputError, match="bea_000 was not made by this program"):
        write_synthetic(request(scans, masks, tmp_path / "root", overwrite=True))
    assert note.is_file()


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        ({"seed": 1}, "seed was 0, now it is 1"),
        ({"brain_size": 0.9}, "brain_size was 1.0, now it is 0.9"),
        ({"find_brains": True}, "found_brain was False, now it is True"),
    ],
)
def test_existing_pairs_made_with_other_settings_are_refused(
    scans, masks, tmp_path, fields, difference
):
    output = tmp_path / "root"
    write_all(request(scans, masks, output))
    with pytest.raises(InputError, match=rf"bea_000 does not match this request \({difference}\)"):
        write_synthetic(request(scans, masks, output, **fields))


def test_the_same_command_resumes_an_interrupted_run(scans, masks, tmp_path):
    output = tmp_path / "root"
    records = write_all(request(scans, masks, output))
    lost, kept = (output / name / layout.TIME02 for name in ("carl_001", "bea_001"))
    before, made = lost.read_bytes(), kept.stat().st_mtime_ns
    shutil.rmtree(lost.parent)
    assert write_all(request(scans, masks, output)) == records
    assert lost.read_bytes() == before
    assert kept.stat().st_mtime_ns == made, "existing pairs are not made again"


def test_overwrite_replaces_existing_pairs(scans, masks, tmp_path):
    output = tmp_path / "root"
    write_synthetic(request(scans, masks, output))
    before = (output / "bea_001" / layout.TIME02).read_bytes()
    write_synthetic(request(scans, masks, output, seed=1, overwrite=True))
    assert (output / "bea_001" / layout.TIME02).read_bytes() != before


def test_an_unusable_scan_does_not_stop_the_others(scans, masks, tmp_path, monkeypatch, capsys):
    def read(files, find_brain):
        if files.name == "bea":
            raise InputError(f"{files.scans[0]}: no head was found in it")
        return make_source((3.0, 3.0, 3.0), 0.02, files.name)

    monkeypatch.setattr(writer, "read_source", read)
    arguments = [f"--scans={scans}", f"--masks={masks}", f"--output={tmp_path / 'root'}"]
    assert main([*arguments, "--pairs=1", "--jobs=1"]) == 1
    out, err = capsys.readouterr()
    *lines, last = out.splitlines()
    assert [line.split()[0] for line in lines] == ["bea:", "carl_000"]
    assert last.startswith(f"pairs: {tmp_path / 'root'} (1 pair)")
    assert "1 of 2 scans failed:\n  bea: " in err
    assert f"{scans / 'bea.nii.gz'}: no head was found in it" in err


def test_pairs_are_never_written_to_the_folder_of_the_scans(scans, masks):
    for output in (scans, scans / "pairs"):
        with pytest.raises(InputError, match=r"lies in --scans=.*\. Choose another place\."):
            write_synthetic(request(scans, masks, output))
    assert sorted(path.name for path in scans.iterdir()) == ["bea.nii.gz", "carl"]


def test_scans_of_one_name_in_two_folders_get_the_name_of_their_folder(scans, masks, tmp_path):
    more = tmp_path / "more"
    touch(more / "bea.nii.gz", more / "dora.nii.gz")
    two = SyntheticRequest((scans, more), (masks,), tmp_path / "root", pairs=1, jobs=1)
    names = ["more_bea", "more_dora", "scans_bea", "scans_carl"]
    records = write_all(two)
    assert [record["source"] for record in records] == names
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == [
        f"{name}_000" for name in names
    ]


def test_two_scans_with_the_same_name_are_refused(scans, masks, tmp_path):
    """The folders have one name too, so that putting it in front does not help."""
    more = tmp_path / "more" / "scans"
    touch(more / "bea.nii.gz")
    with pytest.raises(InputError, match="another scan has the same name, scans_bea"):
        write_synthetic(SyntheticRequest((scans, more), (masks,), tmp_path / "root"))


def test_leaving_out_all_scans_is_an_error(scans, masks, tmp_path):
    with pytest.raises(InputError, match="all scans of --scans are left out"):
        write_synthetic(request(scans, masks, tmp_path / "root", leave_out=("bea", "carl")))


def test_a_pair_that_fails_leaves_no_files(scans, masks, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(writer, "write_array", fail)
    output = tmp_path / "root"
    records, failures = write_synthetic(request(scans, masks, output))
    assert records == []
    assert failures == dict.fromkeys(("bea", "carl"), "OSError: no space left on device")
    assert not list(output.iterdir())


def test_the_command_line_checks_its_flags_and_uses_them(
    scans, masks, tmp_path, capsys, monkeypatch
):
    arguments = [f"--scans={scans}", f"--masks={masks}", f"--output={tmp_path / 'root'}"]
    assert main([*arguments[:1], f"--masks={tmp_path / 'nowhere'}", arguments[2]]) == 1
    assert "nowhere: no such folder. Expected a folder with lesion masks" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--pairs=0"])
    assert (
        "--pairs: 0 is out of range. Expected a whole number, 1 or more" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        main([*arguments, "--brain_size=90"])
    assert (
        "--brain_size: 90 is out of range. Expected a number from 0.7 to 1.3"
        in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        main([*arguments, "--least_contrast=1.5"])
    assert (
        "--least_contrast: 1.5 is out of range. Expected a number, 0 or more and less"
        in capsys.readouterr().err
    )
    options = ("--brain_size=0.9", "--find_brains", "--leave_out=bea", "--least_contrast=0.3")
    requests = []
    with monkeypatch.context() as patched:
        patched.setattr(
            "msseg_jax.cli.synthetic.write_synthetic", lambda new: requests.append(new) or ([], {})
        )
        assert main([*arguments, *options]) == 0
    assert requests == [
        SyntheticRequest(
            (scans,), (masks,), tmp_path / "root", leave_out=("bea",), brain_size=0.9,
            find_brains=True, least_contrast=0.3,
        )
    ]  # fmt: skip
    capsys.readouterr()
    assert main([*arguments, "--pairs=1", "--jobs=1", "--seed=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["bea_000", "carl_000", "pairs:"]


@pytest.mark.slow
def test_reading_a_scan_finds_its_brain_and_registers_it_to_mni_space(tmp_path):
    heads = write_heads(tmp_path)
    scan = tmp_path / "scans" / "anna" / "FLAIR.nii.gz"
    scan.parent.mkdir(parents=True)
    sitk.WriteImage(read(heads / "time02.nii.gz"), str(scan))  # this head is turned by 25 degrees
    (files,) = find_sources(tmp_path / "scans")
    source = read_source(files)
    volume_ml = source.brain.sum() * np.prod(source.spacing_mm) / 1000
    assert 900 < volume_ml < 1800
    assert np.median(source.images[0][source.brain]) == pytest.approx(1, abs=1e-3)
    # In MNI space, check the middle of the brain and its size, about 130 x 165 x 130 mm.
    voxels = np.argwhere(source.brain)
    places = nib.affines.apply_affine(source.to_mni @ source.affine, voxels)
    np.testing.assert_allclose(np.median(places, axis=0), (0, -20, 12), atol=12)
    low, high = np.percentile(places, [1, 99], axis=0)
    np.testing.assert_allclose((high - low) / (130, 165, 130), 0.95, atol=0.2)

    (scan.parent / "brain_mask.nii.gz").write_bytes((heads / "brain01.nii.gz").read_bytes())
    (files,) = find_sources(tmp_path / "scans")
    given = read_source(files)
    mask = nib.load(files.brain_mask).get_fdata() > 0
    image = nib.load(files.scans[0]).get_fdata()
    assert given.brain.sum() == (mask & (image > 0)).sum()
    found = read_source(files, find_brain=True)
    np.testing.assert_array_equal(found.brain, source.brain)

    empty = nib.load(files.brain_mask)
    few = np.zeros(empty.shape, np.uint8)
    few[:2, :2, :2] = 1
    nib.save(nib.Nifti1Image(few, empty.affine), files.brain_mask)
    with pytest.raises(
        InputError,
        match=r"brain_mask\.nii\.gz: the brain mask has a volume of 0 ml.*--leave_out=anna",
    ):
        read_source(files)


def test_reading_a_pair_gives_both_visits_and_the_lesion_changes(tmp_path):
    heads = write_heads(tmp_path)
    folder = tmp_path / "scans" / "anna"
    folder.mkdir(parents=True)
    (pair,) = (path for path in (heads / "phantoms").iterdir() if path.is_dir())
    for name in (layout.TIME01, layout.TIME02, layout.BRAIN_MASK):
        shutil.copy(pair / name, folder / name)
    shutil.copy(pair / layout.CONSENSUS, folder / "change_mask.nii.gz")
    source = read_source(find_sources(tmp_path / "scans")[0])
    assert source.is_pair
    for image in source.images:
        assert np.median(image[source.brain]) == pytest.approx(1, abs=1e-3)
    change = nib.load(pair / layout.CONSENSUS)
    assert 0 < source.lesions.sum() <= (change.get_fdata() > 0).sum()
    # The affine is correct after cropping: the lesions have the same position as in the file.
    cropped, original = (
        np.median(nib.affines.apply_affine(affine, np.argwhere(mask)), axis=0)
        for affine, mask in (
            (source.affine, source.lesions), (change.affine, change.get_fdata() > 0),
        )
    )  # fmt: skip
    np.testing.assert_allclose(cropped, original, atol=1e-3)
    first, second = source.images
    assert (second - first)[source.lesions].mean() > 0.1, "new lesions are brighter in visit 2"


@pytest.fixture
def scan_folder(tmp_path):
    """Write one visit of an artificial head, skull-stripped, without masks of lesions."""
    heads = write_heads(tmp_path)
    (pair,) = (path for path in (heads / "phantoms").iterdir() if path.is_dir())
    folder = tmp_path / "scans" / "anna"
    folder.mkdir(parents=True)
    shutil.copy(pair / layout.TIME02, folder / "FLAIR.nii.gz")
    shutil.copy(pair / layout.BRAIN_MASK, folder / "brain_mask.nii.gz")
    return folder


def test_the_lesions_of_a_scan_are_known_if_there_is_a_mask_of_them(scan_folder, monkeypatch):
    """An empty mask says that there are none. Normal bright tissue is never a lesion."""
    # Registration and bias correction are slow, and change no mask.
    registered = SimpleNamespace(to_atlas=sitk.AffineTransform(3))
    monkeypatch.setattr(source_module, "look_at", lambda *_: registered)
    monkeypatch.setattr(source_module, "correct_bias", lambda image, mask: image)

    def read_it():
        return read_source(find_sources(scan_folder.parent)[0])

    def write(name, voxels):
        array = np.zeros(brain.shape, np.uint8)
        array[tuple(voxels.T)] = 1
        nib.save(nib.Nifti1Image(array, brain.affine), scan_folder / name)

    brain = nib.load(scan_folder / "brain_mask.nii.gz")
    inside = np.argwhere(brain.get_fdata() > 0)
    middle = inside[len(inside) // 2 :]
    unknown = read_it()
    assert not unknown.lesions_known
    assert not unknown.lesions.any()
    write("lesion_mask.nii.gz", middle[:0])
    none = read_it()
    assert none.lesions_known
    assert not none.lesions.any()
    write("lesion_mask.nii.gz", middle[:40])
    write("normal_hyperintensity.nii.gz", middle[30:50])
    some = read_it()
    assert some.lesions_known
    for mask, voxels in ((some.lesions, middle[:30]), (some.normal, middle[30:50])):
        places, expected = (
            nib.affines.apply_affine(affine, np.array(where))
            for affine, where in ((some.affine, np.argwhere(mask)), (brain.affine, voxels))
        )
        np.testing.assert_allclose(places, expected, atol=1e-3)


def test_mni_space_is_found_after_the_average_brain_was_moved(tmp_path):
    """The image is a FLAIR-like version of ICBM 152 that is rotated, shifted and scaled down."""
    from nilearn import datasets

    turn = Rotation.from_euler("xyz", (8, -5, 12), degrees=True).as_matrix()
    to_head = nib.affines.from_matvec(0.92 * turn, (6, -9, 14))  # MNI mm to scanner mm
    grey, white = (
        load(resolution=2)
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    image = (1.1 * grey.get_fdata() + 0.9 * white.get_fdata()).astype(np.float32)
    (tmp_path / "scans").mkdir()
    nib.save(nib.Nifti1Image(image, to_head @ grey.affine), tmp_path / "scans" / "average.nii.gz")
    source = read_source(find_sources(tmp_path / "scans")[0])
    brain = np.argwhere(source.brain)[::50]
    scanner_mm = nib.affines.apply_affine(source.affine, brain)
    found_mm = nib.affines.apply_affine(source.to_mni, scanner_mm)
    error_mm = found_mm - nib.affines.apply_affine(np.linalg.inv(to_head), scanner_mm)
    assert np.median(np.linalg.norm(error_mm, axis=1)) < 3
    size = np.linalg.det(source.to_mni[:3, :3]) ** (1 / 3)
    assert size == pytest.approx(1 / 0.92, abs=0.03)


@pytest.mark.slow
def test_pairs_do_not_depend_on_the_number_of_processes(masks, tmp_path):
    heads = write_heads(tmp_path)
    for name in ("anna", "bea"):
        (tmp_path / "scans" / name).mkdir(parents=True)
        shutil.copy(heads / "time01.nii.gz", tmp_path / "scans" / name / "FLAIR.nii.gz")
    two = request(tmp_path / "scans", masks, tmp_path / "two", pairs=1, jobs=2)
    assert [record["patient"] for record in write_all(two)] == ["anna_000", "bea_000"]
    write_all(request(tmp_path / "scans", masks, tmp_path / "one", pairs=1, leave_out=("bea",)))
    for name in (layout.TIME01, layout.TIME02, layout.BRAIN_MASK, layout.CONSENSUS):
        made = [(tmp_path / root / "anna_000" / name).read_bytes() for root in ("one", "two")]
        assert made[0] == made[1]
