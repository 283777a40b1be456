"""Write DICOM series for the tests, and compare images."""

import struct

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from msseg_jax.prepare.dicom.values import quiet

# A rotation; its columns are the directions of the axes.
TURNED = (0.96, -0.28, 0.0, 0.168, 0.576, -0.8, 0.224, 0.768, 0.6)


def make_image(slices=12, spacing_mm=(1.5, 1.0, 4.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    """Make an image of 8 x 6 voxels per slice. Each voxel has a different value."""
    array = np.arange(slices * 6 * 8, dtype=np.int16).reshape(slices, 6, 8)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm)
    image.SetDirection(direction)
    image.SetOrigin((-20.5, 30.0, 7.25))
    return image


def write_series(
    folder, image, uid="1.2.3", number="5", description="t2 flair", name="IM{:03}", first=0,
    digits=6, shift_mm=(0, 0, 0), writer=None, **tags,
):  # fmt: skip
    """Write one file per slice, as an MR scanner does, and return the folder.

    Args:
      name: format of the file names, filled with the slice number.
      first: number of the first slice.
      digits: decimals of the positions.
      shift_mm: (3,), added to the position of each slice relative to the slice before it.
      writer: a SimpleITK writer; None makes one.
      tags: further DICOM tags. The tag "0028|1050" is given as _0028_1050.
    """
    array = sitk.GetArrayFromImage(image)
    axes = np.array(image.GetDirection()).reshape(3, 3)
    if writer is None:
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    for k in range(image.GetDepth()):
        position = image.TransformIndexToPhysicalPoint((0, 0, k)) + k * np.array(shift_mm)
        slice_ = sitk.GetImageFromArray(array[k], isVector=array.ndim == 4)
        slice_.SetSpacing(image.GetSpacing()[:2])
        header = {
            "0008|0018": f"{uid}.{first + k}",
            "0008|0060": "MR",
            "0008|103e": description,
            "0020|000d": "1.2",
            "0020|000e": uid,
            "0020|0011": number,
            "0020|0032": "\\".join(f"{mm:.{digits}f}" for mm in position),
            "0020|0037": "\\".join(f"{cosine:.6f}" for cosine in axes[:, :2].T.ravel()),
            "0028|1050": "100",  # the window, which is only for display
            "0028|1051": "50",
            **{key[1:].replace("_", "|"): value for key, value in tags.items()},
        }
        for key, value in header.items():
            slice_.SetMetaData(key, value)
        path = folder / name.format(first + k)
        path.parent.mkdir(parents=True, exist_ok=True)
        writer.SetFileName(str(path))
        writer.Execute(slice_)
    return folder


def write_enhanced(path, image, uid="1.2.9"):
    """Write all slices into one file, as newer scanners do."""
    image = sitk.Image(image)
    image.SetMetaData("0008|0060", "MR")
    image.SetMetaData("0020|000e", uid)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(image)


def set_raw(path, **values):
    """Set elements of a file, or of all files in a folder, to bytes or numbers, also invalid ones.

    None removes an element. A pair (VR, bytes) also sets the type of the element.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        with quiet():
            _set_raw(file, values)
    return path


def _set_raw(file, values):
    dataset = pydicom.dcmread(file)
    is_implicit, is_little = dataset.original_encoding
    for keyword, value in values.items():
        tag = Tag(tag_for_keyword(keyword))
        if value is None:
            del dataset[tag]
            continue
        vr, content = value if isinstance(value, tuple) else (dictionary_VR(tag), value)
        if isinstance(content, int):
            content = struct.pack("<H", content)
        dataset[tag] = RawDataElement(tag, vr, len(content), content, 0, is_implicit, is_little)
    dataset.save_as(file)


def check_same(found, image, atol=1e-4):
    """Check that two images have the same voxels and the same grid."""
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(image))
    assert found.GetSpacing() == pytest.approx(image.GetSpacing(), abs=atol)
    assert found.GetOrigin() == pytest.approx(image.GetOrigin(), abs=atol)
    assert found.GetDirection() == pytest.approx(image.GetDirection(), abs=atol)
