"""Check the folders that the fuzzing of DICOM starts from, and some damaged ones."""

from random import Random

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks.fuzz.targets import dicom
from msseg_jax.prepare.scan import read_scan
from msseg_jax.system.errors import InputError

KINDS = (*dicom.PLAIN, *dicom.BY_ITK)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    dicom.make(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_the_voxels_of_each_kind_of_encoding_are_right(seeds, kind):
    found = sitk.GetArrayFromImage(read_scan(seeds / kind).image)
    expected = np.stack([dicom._voxels(number) for number in range(dicom.SLICES)])
    np.testing.assert_array_equal(found, expected)
    dicom.use(seeds / kind)


def test_damaged_folders_are_read_or_refused(seeds, tmp_path):
    refused = 0
    for number in range(60):
        case = tmp_path / str(number)
        case.mkdir()
        dicom.mutate(Random(number), seeds, case)
        try:
            dicom.use(case)
        except InputError:
            refused += 1
    assert 20 < refused < 60


def test_a_case_depends_only_on_its_random_numbers(seeds, tmp_path):
    for number in range(20):
        one, other = tmp_path / f"{number}a", tmp_path / f"{number}b"
        for case in (one, other):
            case.mkdir()
            dicom.mutate(Random(number), seeds, case)
        assert [p.read_bytes() for p in sorted(one.iterdir())] == [
            p.read_bytes() for p in sorted(other.iterdir())
        ]
