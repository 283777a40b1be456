"""Test how the commands treat the dates and the patient in DICOM headers."""

import json
import shutil

import pytest
import SimpleITK as sitk

from msseg_jax.cli.main import main
from msseg_jax.prepare import patient as patient_module
from msseg_jax.prepare.record import read_record
from msseg_jax.system.errors import InputError
from tests.support import heads
from tests.support.dicom import set_raw, write_series
from tests.support.runs import save_run

VISITS = ("time01", "time02")
DATES = ("2019-03-04", "2020-01-02")  # 304 days apart


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Write two visits of a phantom as DICOM folders, with a date for each."""
    folder = heads.write_heads(tmp_path_factory.mktemp("scans"))
    for visit, day in zip(VISITS, DATES, strict=True):
        image = sitk.Cast(heads.read(folder / f"{visit}.nii.gz"), sitk.sitkInt16)
        write_series(folder / visit, image)
        set_raw(
            folder / visit, AcquisitionDate=day.replace("-", "").encode(),
            AcquisitionTime=b"103205.5 ", PatientSex=b"F",
        )  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def registered(scans, monkeypatch):
    """Replace the registration, which takes long, by the known motion."""
    monkeypatch.setattr(patient_module, "register_visits", heads.known_registration(scans))


def given(scans, first="time01", second="time02"):
    return ["-t1", str(scans / first), "-t2", str(scans / second)]


def never(*_):
    raise AssertionError("computed something")


@pytest.fixture(scope="module")
def prepared(scans, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "anna"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(patient_module, "register_visits", heads.known_registration(scans))
        assert main(["prepare", *given(scans), "-o", str(folder)]) == 0
    return folder


def test_the_record_holds_both_dates_and_their_times(prepared):
    record = json.loads((prepared / "prepare.json").read_text())
    assert [record[visit]["acquired_on"] for visit in VISITS] == list(DATES)
    assert record["time01"]["acquired_at"] == "10:32:05"
    assert record["warnings"] == []
    assert str(read_record(prepared / "prepare.json").time02.acquired_on) == DATES[1]


@pytest.mark.parametrize("command", ["prepare", "predict"])
def test_reversed_visits_are_refused_before_anything_is_computed(
    scans, small_config, tmp_path, capsys, monkeypatch, command
):
    monkeypatch.setattr(patient_module, "register_visits", never)
    flags = [f"-o={tmp_path / 'out'}"]
    if command == "predict":
        run = save_run(tmp_path / "run", small_config)
        flags = ["--prepare", f"-o={tmp_path / 'out.nii.gz'}", f"--model={run}"]
    assert main([command, *given(scans, "time02", "time01"), *flags]) == 1
    said = capsys.readouterr().err
    assert "acquired on 2020-01-02, after the second, of 2019-03-04" in said
    assert "Swap -t1 and -t2" in said
    assert "--allow_reversed" in said
    assert not list(tmp_path.glob("out*"))


def test_reversed_visits_are_prepared_with_a_warning_if_they_are_allowed(scans, tmp_path, capsys):
    folder = tmp_path / "anna"
    reverse = given(scans, "time02", "time01")
    monkey = ["--brain_mask02", str(scans / "brain01.nii.gz")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(patient_module, "register_visits", reversed_registration(scans))
        assert main(["prepare", *reverse, *monkey, "-o", str(folder), "--allow_reversed"]) == 0
    assert "WARNING: anna: The visits are in reverse order" in capsys.readouterr().out
    (warning,) = read_record(folder / "prepare.json").warnings
    assert "2020-01-02, after the second, of 2019-03-04" in warning


def reversed_registration(scans):
    """Return a replacement of `register_visits` for visits in reverse order."""
    from msseg_jax.prepare.registration import on_grid
    from msseg_jax.prepare.visits import Registered, Visit

    def register(pair, _):
        brain = heads.read(scans / "brain01.nii.gz") > 0
        moved = on_grid(brain, pair[0].image, heads.MOTION.GetInverse())
        visits = tuple(
            Visit(scan, scan.image, mask, None, None, None)
            for scan, mask in zip(pair, (moved, brain), strict=True)
        )
        return Registered(visits, heads.MOTION.GetInverse(), 0.9, -0.3)

    return register


def test_the_report_shows_both_dates_and_the_interval(scans, prepared, small_config, tmp_path):
    small_config.data.spacing_mm = 4.0
    run = save_run(tmp_path / "run", small_config)
    page = tmp_path / "new.html"
    flags = [f"--model={run}", f"--output={tmp_path / 'new.nii.gz'}", f"--report={page}"]
    assert main(["predict", *given(scans), *flags, f"--prepare={prepared}"]) == 0
    assert "<p>Dates of the visits: 2019-03-04 and 2020-01-02, 304 days apart</p>" in (
        page.read_text()
    )


def test_a_pair_of_an_earlier_version_without_dates_is_refused_with_the_reason(
    scans, prepared, tmp_path
):
    folder = tmp_path / "anna"
    shutil.copytree(prepared, folder)
    record = json.loads((folder / "prepare.json").read_text())
    for visit in VISITS:
        del record[visit]["acquired_on"], record[visit]["acquired_at"]
    record["asked_for"]["format"] -= 1
    (folder / "prepare.json").write_text(json.dumps(record))
    request = patient_module.Request(scans / "time01", scans / "time02")
    with pytest.raises(InputError, match="was written by another version of this program"):
        patient_module.prepare_patient(request, folder)


def test_a_pair_that_contradicts_itself_is_reported_also_if_it_was_prepared_before(
    scans, prepared, tmp_path, capsys
):
    other = tmp_path / "other"
    shutil.copytree(scans / "time02", other)
    set_raw(other, PatientSex=b"M", AcquisitionDate=b"20190304")
    flags = ["-t1", str(scans / "time01"), "-t2", str(other), "-o", str(prepared)]
    assert main(["prepare", *flags]) == 0
    said = capsys.readouterr().out
    assert "done before" in said  # the voxels are the same
    assert f"WARNING: {prepared.name}: Both visits have the same date, 2019-03-04" in said
    assert "contradict each other about the patient: PatientSex differs." in said
