import json
import re
import shlex
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msseg_jax.prepare.given_mask import check_command, read_mask, run_command
from msseg_jax.prepare.images import affine_of, array_of, image_of
from msseg_jax.prepare.scan import Scan
from msseg_jax.system.errors import InputError

SHAPE = (10, 12, 14)
AFFINE = np.array([[-2, 0.0, 0, 9], [0, 1.6, -1.8, 5], [0, 1.2, 2.4, -7], [0, 0, 0, 1]])  # oblique
INSIDE = (slice(6, 10), slice(2, 7), slice(3, 8))  # 4 x 5 x 5 voxels, touch the image border


@pytest.fixture
def scan():
    array = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
    return Scan(Path("visit 1.nii.gz"), image_of(array, AFFINE), None, "", True)


def brain(value=1, dtype=np.uint8):
    mask = np.zeros(SHAPE, dtype)
    mask[INSIDE] = value
    return mask


def save(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def check_brain(found):
    """Check that `found` is the brain mask on the grid of the scan."""
    np.testing.assert_array_equal(array_of(found), brain())
    np.testing.assert_allclose(affine_of(found), AFFINE, atol=1e-9)
    assert array_of(found).dtype == np.uint8


# -------------------------------------------------------------------------- masks in files


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_mask_on_the_grid_of_its_visit_is_not_changed(tmp_path, scan, value, dtype):
    check_brain(read_mask(save(tmp_path / "mask.nii.gz", brain(value, dtype)), scan))


@pytest.mark.parametrize(
    "axes",
    [
        [[0, -1], [1, 1], [2, 1]],  # flipped
        [[2, 1], [0, 1], [1, 1]],  # permuted
        [[1, -1], [2, 1], [0, -1]],
    ],
)
def test_a_mask_with_other_axes_is_resampled_to_the_visit(tmp_path, scan, axes):
    turned = nib.Nifti1Image(brain(), AFFINE).as_reoriented(np.array(axes))
    nib.save(turned, tmp_path / "mask.nii.gz")
    assert not np.array_equal(np.asarray(turned.dataobj), brain())
    check_brain(read_mask(tmp_path / "mask.nii.gz", scan))


def test_a_mask_may_have_another_field_of_view(tmp_path, scan):
    affine = AFFINE.copy()
    affine[:3, 3] = nib.affines.apply_affine(AFFINE, (5, 1, 2))
    cropped = brain()[5:, 1:9, 2:11]
    check_brain(read_mask(save(tmp_path / "mask.nii.gz", cropped, affine), scan))


@pytest.mark.parametrize(("voxels", "percent"), [(1, 75), (2, 50), (4, 0)])
def test_refuses_a_mask_that_lies_elsewhere(tmp_path, scan, voxels, percent):
    affine = AFFINE.copy()
    affine[:3, 3] = nib.affines.apply_affine(AFFINE, (voxels, 0, 0))  # beyond the field of view
    path = save(tmp_path / "mask.nii.gz", brain(), affine)
    with pytest.raises(InputError) as error:
        read_mask(path, scan)
    assert str(error.value).startswith(
        f"{path}: only {percent} % of the mask lies in the field of view of visit 1.nii.gz; "
        "expected at least 90 %. Give a mask that was made from this visit"
    )


def _empty(path):
    save(path, brain(0))


def _probabilities(path):
    save(path, brain(0.7, np.float32))


def _nan(path):
    save(path, brain(np.nan, np.float32))


def _text(path):
    path.write_text("mask")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_empty, "the mask is empty; expected 1 inside the brain"),
        (_probabilities, r"not integers\. Expected a brain mask, .*probability map or an image"),
        (_nan, "100 voxels are NaN or infinite"),
        (_text, "not a readable NIfTI|truncated or damaged"),
        (lambda path: None, "no such file"),
    ],
)
def test_refuses_a_file_that_is_not_a_mask_and_names_it(tmp_path, scan, spoil, message):
    path = tmp_path / "mask.nii.gz"
    spoil(path)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{message}"):
        read_mask(path, scan)


# ---------------------------------------------------------------------- masks of a program


class Program:
    """A program that makes masks: a Python script in a folder with a space in its name."""

    def __init__(self, folder):
        self.folder = folder / "my programs"
        self.folder.mkdir()

    def write(self, *lines):
        script = "\n".join(["import json, pathlib, shutil, sys", *lines])
        (self.folder / "find brain.py").write_text(script)
        return self

    def save(self, name, array):
        """Save a mask that the script can copy, and return the `repr` of its path."""
        return repr(str(save(self.folder / name, array)))

    def words(self, *rest, output="{output}"):
        """Return the words of a command line that ends with `rest`, as a user types it."""
        program = shlex.join([sys.executable, str(self.folder / "find brain.py")])
        return check_command(" ".join([program, "{input}", output, *rest]))

    def run(self, scan, *rest, **options):
        return run_command(self.words(*rest, **options), scan)


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Program(tmp_path)


def test_a_program_makes_the_mask_from_the_scan_that_it_gets(program, scan):
    mask = program.save("mask.nii.gz", brain())
    seen = program.folder / "seen.nii.gz"
    program.write(
        f"shutil.copy(sys.argv[1], {str(seen)!r})",
        f"shutil.copy({mask}, sys.argv[2])",
        "(pathlib.Path(sys.argv[2]).parent / 'by the way.txt').touch()",
        f"pathlib.Path({str(program.folder / 'where')!r}).write_text(sys.argv[1])",
    )
    check_brain(program.run(scan))
    np.testing.assert_array_equal(nib.load(seen).get_fdata(), array_of(scan.image))
    np.testing.assert_allclose(nib.load(seen).affine, AFFINE, atol=1e-5)
    assert not Path((program.folder / "where").read_text()).parent.exists()  # it was temporary


def test_arguments_are_passed_unchanged_and_without_a_shell(program, scan, tmp_path):
    mask = program.save("mask.nii.gz", brain())
    program.write(
        "output = sys.argv[2].removeprefix('--out=')",
        f"shutil.copy({mask}, output)",
        f"pathlib.Path({str(program.folder / 'said')!r}).write_text(json.dumps(sys.argv[3:]))",
    )
    found = program.run(
        scan, "'two words'", "$HOME", "*", "; touch hacked", "> hacked", output="--out={output}"
    )
    check_brain(found)
    said = json.loads((program.folder / "said").read_text())
    assert said == ["two words", "$HOME", "*", ";", "touch", "hacked", ">", "hacked"]
    assert [path.name for path in tmp_path.iterdir()] == ["my programs"]


def test_a_program_is_started_in_the_current_folder(program, scan):
    mask = program.save("mask.nii.gz", brain())
    program.write(f"shutil.copy({mask}, sys.argv[2])")
    words = [sys.executable, "my programs/find brain.py", "{input}", "{output}"]
    check_brain(run_command(words, scan))


@pytest.mark.parametrize("suffix", ["_mask", "_bet"])
def test_a_mask_is_preferred_to_the_stripped_image_in_the_same_folder(program, scan, suffix):
    """Use a stripped image with a hole of zeros in the brain. The mask has no hole."""
    stripped = array_of(scan.image) * brain()
    stripped[7, 4, 5] = 0
    image = program.save("image.nii.gz", stripped)
    mask = program.save("mask.nii.gz", brain())
    program.write(
        f"shutil.copy({image}, sys.argv[2])",
        f"shutil.copy({mask}, sys.argv[2].replace('.nii.gz', '{suffix}.nii.gz'))",
    )
    check_brain(program.run(scan))


@pytest.mark.parametrize("outside", [0, np.nan])
def test_the_brain_is_the_non_zero_part_of_a_stripped_image_without_a_mask(program, scan, outside):
    stripped = np.where(brain() == 1, array_of(scan.image), np.float32(outside))
    stripped[6, 2, 3] = -0.5  # some programs subtract a mean
    image = program.save("image.nii.gz", stripped)
    check_brain(program.write(f"shutil.copy({image}, sys.argv[2])").run(scan))


def test_a_program_gets_a_scan_with_axes_slightly_off_right_angles(program):
    affine = AFFINE.copy()
    affine[0, 2] += 3 * np.radians(0.1)
    scan = Scan(Path("a.nii"), image_of(np.ones(SHAPE, np.float32), affine), None, "", True)
    mask = save(program.folder / "mask.nii.gz", brain(), affine)
    program.write(f"shutil.copy({str(mask)!r}, sys.argv[2])")
    np.testing.assert_array_equal(array_of(program.run(scan)), brain())


def check_said(program, scan, *parts):
    """Check that the error message names the command and the visit, and contains all parts."""
    with pytest.raises(InputError) as error:
        program.run(scan, "-v")
    message = str(error.value)
    assert message.startswith(f"--brain_mask_command ({shlex.join(program.words('-v'))}) for ")
    assert "for visit 1.nii.gz: " in message
    for part in parts:
        assert part in message
    return message


def test_the_last_output_of_a_program_that_fails_is_shown(program, scan):
    program.write(
        "for k in range(8):",
        "    print('line', k, file=sys.stderr if k == 6 else sys.stdout, flush=True)",
        "sys.exit(3)",
    )
    message = check_said(program, scan, "failed with exit status 3. Its last output:\n  line 3\n")
    assert message.endswith("\n  line 3\n  line 4\n  line 5\n  line 6\n  line 7")


def test_the_exit_status_of_a_program_that_fails_without_output_is_shown(program, scan):
    program.write("sys.exit(1)")
    assert check_said(program, scan).endswith("failed with exit status 1")


def test_the_output_of_a_program_may_be_no_valid_text(program, scan):
    program.write("sys.stdout.buffer.write(b'no mod\\xe8le')", "sys.exit(2)")
    check_said(program, scan, "status 2. Its last output:\n  no mod\N{REPLACEMENT CHARACTER}le")


def test_a_program_that_succeeds_without_a_mask_has_its_own_message(program, scan):
    program.write("pathlib.Path(sys.argv[2]).with_suffix('').touch()", "print('done')")
    check_said(
        program, scan,
        "the program succeeded, but wrote no mask; expected the file {output}, or that name with",
        "The folder contains: flair.nii.gz, mask.nii. Its last output:\n  done",
    )  # fmt: skip


def test_an_output_that_is_not_a_mask_is_reported_with_the_command(program, scan):
    program.write("pathlib.Path(sys.argv[2]).write_text('mask')")
    check_said(program, scan, "its output is not a mask: ", "mask.nii.gz: ")


def test_an_empty_mask_is_reported_with_the_command(program, scan):
    mask = program.save("mask.nii.gz", brain(0))
    program.write(f"shutil.copy({mask}, sys.argv[2])")
    check_said(program, scan, "the mask is empty")


def test_refuses_a_program_that_is_not_installed(scan):
    with pytest.raises(InputError) as error:
        run_command(check_command("no_such_bet {input} {output}"), scan)
    assert "no_such_bet '{input}' '{output}') for visit 1.nii.gz: cannot be" in str(error.value)
    assert str(error.value).endswith("Check that it is installed.")


def test_a_command_is_split_into_words():
    words = check_command("bet {input} '--out={output}' \"two words\"")
    assert words == ["bet", "{input}", "--out={output}", "two words"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("bet {input} mask", r"does not contain \{output\}; expected a command with both, such as"),
        ("bet {output}", r"does not contain \{input\};"),
        ("bet", r"does not contain \{input\} or \{output\};"),
        ("", r"does not contain \{input\} or \{output\};"),
        ('bet "{input} {output}', "No closing quotation"),
    ],
)
def test_refuses_an_invalid_command_before_it_is_run(command, message):
    with pytest.raises(InputError, match=f"^--brain_mask_command={re.escape(command)}: {message}"):
        check_command(command)
