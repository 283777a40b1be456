"""Test what is read from the header of one DICOM file, and what is refused."""

import re
import struct
import time
import warnings
import zlib
from datetime import date
from datetime import time as clock
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    RLELossless,
)

from msseg_jax.prepare.dicom import header
from msseg_jax.prepare.dicom.codestream import EncodedSize, encoded_size
from msseg_jax.prepare.dicom.header import read_slice
from msseg_jax.prepare.dicom.reading import read_series
from msseg_jax.prepare.dicom.values import DamagedSliceError
from msseg_jax.system.errors import InputError
from tests.support.dicom import check_same, make_image, set_raw, write_series


@pytest.fixture
def folder(tmp_path):
    return write_series(tmp_path / "series", make_image())


@pytest.fixture
def path(folder):
    """Return the first file, with sizes that differ in all directions."""
    return folder / "IM000"


def compressed(folder, image, compressor):
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    return write_series(folder, image, writer=writer)


# ---------------------------------------------------------------------------------- numbers


def test_decimal_strings_may_have_blanks_exponents_and_no_digit_after_the_point(path):
    set_raw(path, ImagePositionPatient=b" -20.5 \\ 3e1\\+7.", PixelSpacing=b"1.0 \\ 1.5 ")
    found = read_slice(path)
    assert found.position_mm.tolist() == [-20.5, 30.0, 7.0]
    assert found.spacing_mm.tolist() == [1.0, 1.5]
    assert found.shape == (6, 8)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(b" 5", "5"), (b"5.0 ", "5"), (b"-3", "-3"), (b"", ""), (b"five", ""), (b"5\\6", ""),
     (b"1e400", ""), (b"99999999999999999999", "")],
)  # fmt: skip
def test_a_malformed_series_number_counts_as_missing(path, number, expected):
    set_raw(path, SeriesNumber=number)
    assert read_slice(path).labels.number == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ImagePositionPatient": b"1,5\\2\\3"}, r"ImagePositionPatient is 1,5\2\3; expected 3"),
        ({"ImagePositionPatient": b"1\\2"}, r"ImagePositionPatient is 1\2; expected 3 numbers"),
        ({"ImagePositionPatient": b"1\\2\\nan"}, "ImagePositionPatient is"),
        ({"ImagePositionPatient": b"1\\2\\1e30"}, "ImagePositionPatient is"),
        ({"ImagePositionPatient": None}, "ImagePositionPatient is missing"),
        ({"ImagePositionPatient": ("OB", b"123")}, "ImagePositionPatient is"),
        ({"ImageOrientationPatient": b"0\\0\\0\\0\\0\\0"}, "expected two perpendicular directions"),
        ({"PixelSpacing": b"0\\1"}, r"PixelSpacing is 0\1; expected two lengths above 0"),
        ({"PixelSpacing": None}, "PixelSpacing is missing"),
        ({"Rows": 0}, "Rows is 0; expected a whole number from 1 to 2048"),
        ({"Columns": 65535}, "Columns is 65535; expected a whole number from 1 to 2048"),
        ({"Columns": b"\1\0\2\0"}, r"Columns is 1\2; expected a whole number"),
        ({"Rows": ("LO", b"6")}, "Rows is 6; expected a whole number"),
        ({"Rows": ("ZZ", b"\6\0")}, "Rows is missing; expected a whole number"),
        ({"Rows": ("SQ", b"\6\0")}, "Rows is missing; expected a whole number"),
        ({"NumberOfFrames": b"many"}, "NumberOfFrames is many; expected a whole number"),
        ({"BitsAllocated": 64}, "BitsAllocated is 64; expected a whole number from 8 to 32"),
        ({"Rows": 1000}, "it has 96 of 16000 bytes of voxels"),
        ({"PixelData": None}, "it has no voxels"),
    ],
)  # fmt: skip
def test_a_value_that_the_image_needs_is_an_error_with_the_name_of_the_field(
    folder, path, values, said
):
    if any(isinstance(value, tuple) for value in values.values()):
        # The types are only written in files with explicit types.
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(path)
    set_raw(path, **values)
    with pytest.raises(DamagedSliceError, match=re.escape(said)):
        read_slice(path)
    with pytest.raises(InputError, match=re.escape(said)) as error:
        read_series(folder)
    assert "cut off or damaged: IM000; expected complete files" in str(error.value)


def test_odd_values_that_only_describe_a_slice_are_ignored_without_warnings(folder, capfd):
    set_raw(folder, SpecificCharacterSet=b"ISO_IR 999\\nonsense")
    set_raw(
        folder, SeriesDescription=("AT", b"\1\0\2"), PatientBirthDate=b"\xff\xfe", EchoTime=b"abc",
        AcquisitionDate=b"yesterday", StudyDate=b"19000101", AcquisitionNumber=b"1e400",
        InstanceNumber=b"x", ImageType=b"\\\\\\",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_series(folder)
    check_same(found.image, make_image())
    assert found.facts.acquired_on is None
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------ dates


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"AcquisitionDate": b"20190304", "AcquisitionTime": b"103205.25"},
         (date(2019, 3, 4), clock(10, 32, 5))),
        ({"AcquisitionDate": b"2019.03.04"}, (date(2019, 3, 4), None)),  # before DICOM
        ({"AcquisitionDate": b"20190304 ", "AcquisitionTime": b"25"}, (date(2019, 3, 4), None)),
        ({"AcquisitionDateTime": b"20190304103205.5+0100"}, (date(2019, 3, 4), clock(10, 32, 5))),
        ({"AcquisitionDateTime": b"2019"}, None),
        ({"SeriesDate": b"20190304", "SeriesTime": b"1032"}, (date(2019, 3, 4), clock(10, 32))),
        ({"StudyDate": b"20190304"}, (date(2019, 3, 4), None)),
        ({"AcquisitionDate": b"19000101", "StudyDate": b"20190304"}, (date(2019, 3, 4), None)),
        ({"AcquisitionDate": b"20191399", "SeriesDate": b"20190304"}, (date(2019, 3, 4), None)),
        ({"AcquisitionDate": b"20190305", "StudyDate": b"20190304"}, (date(2019, 3, 5), None)),
        ({"StudyDate": b"99991231"}, None),
        ({"StudyDate": b"19700101"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_date_is_the_most_precise_one_that_is_possible(path, values, expected):
    set_raw(path, **{"StudyDate": None, "StudyTime": None} | values)
    assert read_slice(path).labels.acquired == expected


def test_a_series_has_the_date_of_most_slices_and_their_earliest_time(folder):
    set_raw(folder, AcquisitionDate=b"20190304", AcquisitionTime=b"100000", PatientID=b"7")
    set_raw(folder / "IM003", AcquisitionTime=b"095900")
    set_raw(folder / "IM005", AcquisitionDate=b"19950101", AcquisitionTime=b"01", PatientID=b"8")
    facts = read_series(folder).facts
    assert (facts.acquired_on, facts.acquired_at) == (date(2019, 3, 4), clock(9, 59))
    assert facts.patient["PatientID"] == "7"


# --------------------------------------------------------------------- forms of files


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_all_encodings_of_the_elements_are_read(folder, syntax):
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset["PixelData"].VR = "OW"
            voxels = np.frombuffer(dataset.PixelData, "<i2")
            dataset.PixelData = voxels.astype(">i2").tobytes()
        pydicom.dcmwrite(
            path, dataset, implicit_vr=False, little_endian=syntax != ExplicitVRBigEndian,
            force_encoding=True,
        )  # fmt: skip
    check_same(read_series(folder).image, make_image())


def test_files_without_a_preamble_are_read(folder):
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    check_same(read_series(folder).image, make_image())


def test_a_file_that_cannot_be_opened_is_named(folder, path, monkeypatch):
    def refuse(self, *mode):
        if self == path:
            raise PermissionError(13, "Permission denied")
        return opened(self, *mode)

    opened = Path.open
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"IM000: cannot be read \(.*Permission denied\)"):
        read_series(folder)


def test_a_full_disk_for_temporary_copies_is_not_blamed_on_the_scan(folder, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"No space left on device.*Set TMPDIR"):
        read_series(folder)


# ------------------------------------------------------------------------------- limits


def test_a_length_beyond_the_end_of_the_file_does_not_reserve_memory(folder, path):
    content = bytearray(path.read_bytes())
    place = content.index(b"\x08\x00\x3e\x10")  # series description, with a length of 4 bytes
    content[place + 4 : place + 8] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(InputError, match="cut off or damaged: IM000"):
        read_series(folder)
    assert time.process_time() - start < 2


def test_files_with_a_wrong_transfer_syntax_are_refused_in_a_moment(folder):
    """Misread lengths are the expensive ones: GDCM needed 16 s and 0.9 GB for this folder."""
    syntax = b"1.2.840.10008.1.2.4.51"  # JPEG, whose elements have explicit types
    for path in folder.iterdir():
        content = path.read_bytes()
        start = content.index(b"\x02\x00\x10\x00UI")
        end = start + 8 + content[start + 6]
        path.write_bytes(content[: start + 6] + bytes([len(syntax), 0]) + syntax + content[end:])
    start_s = time.process_time()
    said = r"IM000: its voxels cannot be read \(Found unexpected tag"
    with pytest.raises(InputError, match=said):
        read_series(folder)
    assert time.process_time() - start_s < 2


def test_elements_that_the_image_does_not_need_are_not_given_to_the_decoder(folder):
    for path in folder.iterdir():
        claim = b"\xe1\x7f\x01\x10" + (0x7FFFFFF0).to_bytes(4, "little")
        path.write_bytes(path.read_bytes() + claim)
    check_same(read_series(folder).image, make_image())


def test_deeply_nested_sequences_are_refused_or_skipped(folder, path):
    content = path.read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00")
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    nested = (b"\x08\x00\x40\x11\xff\xff\xff\xff" + item) * 20_000
    path.write_bytes(content[:start] + nested + content[start:])
    with pytest.raises(InputError, match=r"cut off or damaged: IM000"):
        read_series(folder)


def test_a_file_that_inflates_to_much_more_is_cut_at_a_limit(folder, path, monkeypatch):
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    end = 144 + int.from_bytes(content[140:144], "little")
    plain = zlib.decompress(content[end:], -zlib.MAX_WBITS)
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(content[:end] + squeeze.compress(plain + bytes(2**28)) + squeeze.flush())
    assert path.stat().st_size < 2**19
    with header.open_dicom(path) as file:
        assert len(file.read()) - end == header.MOST_INFLATED


@pytest.mark.parametrize(("compressor", "place"), [("JPEG2000", 8), ("JPEG", 5)])
def test_a_compressed_image_of_another_size_than_the_header_says_is_refused(
    tmp_path, compressor, place
):
    folder = compressed(tmp_path, make_image(), compressor)
    path = folder / "IM004"
    content = bytearray(path.read_bytes())
    if compressor == "JPEG2000":
        start = content.index(b"\xff\x4f\xff\x51")
        content[start + 8 : start + 16] = (60_000).to_bytes(4, "big") * 2
        said = "60000 x 60000 x 1"
    else:
        start = content.index(b"\xff\xc3")
        content[start + 5 : start + 9] = (60_000).to_bytes(2, "big") * 2
        said = "60000 x 60000 x 1"
    path.write_bytes(content)
    start_s = time.process_time()
    with pytest.raises(
        InputError, match=f"IM004: .*the compressed image is {said}, and the header says 6 x 8 x 1"
    ):
        read_series(folder)
    assert time.process_time() - start_s < 2


@pytest.mark.parametrize("compressor", ["JPEG2000", "JPEG"])
def test_the_size_in_compressed_data_is_found(tmp_path, compressor):
    folder = compressed(tmp_path, make_image(), compressor)
    check_same(read_series(folder).image, make_image())
    dataset = pydicom.dcmread(folder / "IM000")
    frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    assert encoded_size(frame) == EncodedSize(rows=6, columns=8, samples=1)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xff\xd8", b"\xff\xd8" + b"\xff" * 50, b"RLE" * 9]
)
def test_other_data_have_no_size(data):
    assert encoded_size(data) is None


def test_fragments_with_wrong_lengths_do_not_reserve_memory(tmp_path):
    """GDCM needed 4.2 GB and 9 s for RLE data in which 100 bytes of the first slice are missing."""
    folder = write_series(tmp_path, make_image())
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    check_same(read_series(folder).image, make_image())
    content = (folder / "IM000").read_bytes()
    start = content.index(struct.pack("<I", 64), content.rindex(b"\xe0\x7f\x10\x00"))
    (folder / "IM000").write_bytes(content[: start - 14] + content[start + 60 :])
    start_s = time.process_time()
    with pytest.raises(InputError):
        read_series(folder)
    assert time.process_time() - start_s < 2


def test_voxels_that_would_be_much_larger_after_decompression_are_refused(tmp_path):
    folder = compressed(tmp_path, make_image(), "JPEG2000")
    for path in folder.iterdir():
        set_raw(path, Rows=2048, Columns=2048)
    with pytest.raises(InputError, match=r"would take 101 MB after decompression"):
        read_series(folder)
