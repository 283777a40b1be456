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
INSIDE = (slice(6, 10), slice(2, 7), slice(3, 8))  # 4 x 5 x 5 voxels, at the field of view's edge


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
    """The mask, on the grid of the scan."""
    np.testing.assert_array_equal(array_of(found), brain())
    np.testing.assert_allclose(affine_of(found), AFFINE, atol=1e-9)
    assert array_of(found).dtype == np.uint8


# --------------------------------------------------------------------------------- from a file


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_mask_on_the_grid_of_its_visit_is_taken_as_it_is(tmp_path, scan, value, dtype):
    check_brain(read_mask(save(tmp_path / "mask.nii.gz", brain(value, dtype)), scan))


@pytest.mark.parametrize(
    "axes",
    [
        [[0, -1], [1, 1], [2, 1]],  # flipped
        [[2, 1], [0, 1], [1, 1]],  # permuted
        [[1, -1], [2, 1], [0, -1]],
    ],
)
def test_a_mask_counts_by_where_it_lies_not_by_its_axes(tmp_path, scan, axes):
    turned = nib.Nifti1Image(brain(), AFFINE).as_reoriented(np.array(axes))
    nib.save(turned, tmp_path / "mask.nii.gz")
    assert not np.array_equal(np.asarray(turned.dataobj), brain())
    check_brain(read_mask(tmp_path / "mask.nii.gz", scan))


def test_a_mask_may_have_a_field_of_view_of_its_own(tmp_path, scan):
    affine = AFFINE.copy()
    affine[:3, 3] = nib.affines.apply_affine(AFFINE, (5, 1, 2))
    cropped = brain()[5:, 1:9, 2:11]
    check_brain(read_mask(save(tmp_path / "mask.nii.gz", cropped, affine), scan))


@pytest.mark.parametrize(("voxels", "percent"), [(1, 75), (2, 50), (4, 0)])
def test_refuses_a_mask_that_lies_elsewhere(tmp_path, scan, voxels, percent):
    affine = AFFINE.copy()
    affine[:3, 3] = nib.affines.apply_affine(AFFINE, (voxels, 0, 0))  # over the edge
    path = save(tmp_path / "mask.nii.gz", brain(), affine)
    with pytest.raises(InputError) as error:
        read_mask(path, scan)
    assert str(error.value).startswith(
        f"{path}: {percent} % of the mask lies in the field of view of visit 1.nii.gz; expected "
        "the mask of this very visit"
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
        (_probabilities, "no whole numbers; expected a brain mask, .*probability map or an image"),
        (_nan, "100 voxels are NaN or infinite"),
        (_text, "no readable NIfTI|truncated or damaged"),
        (lambda path: None, "no such file"),
    ],
)
def test_refuses_what_is_no_mask_and_names_it(tmp_path, scan, spoil, message):
    path = tmp_path / "mask.nii.gz"
    spoil(path)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{message}"):
        read_mask(path, scan)


# ------------------------------------------------------------------------------ from a program


class Program:
    """A program of the user's: a Python script, in a folder that has a space in its name."""

    def __init__(self, folder):
        self.folder = folder / "my programs"
        self.folder.mkdir()

    def write(self, *lines):
        script = "\n".join(["import json, pathlib, shutil, sys", *lines])
        (self.folder / "find brain.py").write_text(script)
        return self

    def save(self, name, array):
        """A file that the script can copy; its path as Python writes it."""
        return repr(str(save(self.folder / name, array)))

    def words(self, *rest, output="{output}"):
        """Of the command line in which `rest` stands as a user types it."""
        program = shlex.join([sys.executable, str(self.folder / "find brain.py")])
        return check_command(" ".join([program, "{input}", output, *rest]))

    def run(self, scan, *rest, **how):
        return run_command(self.words(*rest, **how), scan)


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Program(tmp_path)


def test_a_program_makes_the_mask_of_the_scan_it_is_given(program, scan):
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
    assert not Path((program.folder / "where").read_text()).parent.exists()  # nothing is left


def test_arguments_arrive_as_they_are_written_and_no_shell_reads_them(program, scan, tmp_path):
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


def test_a_program_is_started_from_where_the_user_is(program, scan):
    mask = program.save("mask.nii.gz", brain())
    program.write(f"shutil.copy({mask}, sys.argv[2])")
    words = [sys.executable, "my programs/find brain.py", "{input}", "{output}"]
    check_brain(run_command(words, scan))


@pytest.mark.parametrize("suffix", ["_mask", "_bet"])
def test_a_mask_beside_the_stripped_image_is_the_mask(program, scan, suffix):
    """The stripped image is 0 in a hole of the brain, which the mask has not."""
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
def test_of_a_stripped_image_alone_the_brain_is_what_is_left(program, scan, outside):
    stripped = np.where(brain() == 1, array_of(scan.image), np.float32(outside))
    stripped[6, 2, 3] = -0.5  # some programs take a mean away
    image = program.save("image.nii.gz", stripped)
    check_brain(program.write(f"shutil.copy({image}, sys.argv[2])").run(scan))


def test_a_scan_whose_axes_are_not_quite_at_right_angles_can_be_given_to_a_program(program):
    affine = AFFINE.copy()
    affine[0, 2] += 3 * np.radians(0.1)
    scan = Scan(Path("a.nii"), image_of(np.ones(SHAPE, np.float32), affine), None, "", True)
    mask = save(program.folder / "mask.nii.gz", brain(), affine)
    program.write(f"shutil.copy({str(mask)!r}, sys.argv[2])")
    np.testing.assert_array_equal(array_of(program.run(scan)), brain())


def check_said(program, scan, *parts):
    """The failure names the command and the visit, and holds all parts."""
    with pytest.raises(InputError) as error:
        program.run(scan, "-v")
    message = str(error.value)
    assert message.startswith(f"--brain_mask_command, {shlex.join(program.words('-v'))}, for ")
    assert "for visit 1.nii.gz: " in message
    for part in parts:
        assert part in message
    return message


def test_a_program_that_fails_is_heard(program, scan):
    program.write(
        "for k in range(8):",
        "    print('line', k, file=sys.stderr if k == 6 else sys.stdout, flush=True)",
        "sys.exit(3)",
    )
    message = check_said(program, scan, "ended with status 3; it said:\n  line 3\n")
    assert message.endswith("\n  line 3\n  line 4\n  line 5\n  line 6\n  line 7")


def test_a_program_that_fails_without_a_word_is_no_riddle(program, scan):
    program.write("sys.exit(1)")
    assert check_said(program, scan).endswith("ended with status 1")


def test_what_a_program_says_need_not_be_text(program, scan):
    program.write("sys.stdout.buffer.write(b'no mod\\xe8le')", "sys.exit(2)")
    check_said(program, scan, "status 2; it said:\n  no mod\N{REPLACEMENT CHARACTER}le")


def test_a_program_that_writes_no_mask_is_told_from_one_that_fails(program, scan):
    program.write("pathlib.Path(sys.argv[2]).with_suffix('').touch()", "print('done')")
    check_said(
        program, scan, "ended well but wrote no mask; expected {output}, or that name with",
        "there is: flair.nii.gz, mask.nii; it said:\n  done",
    )  # fmt: skip


def test_a_file_that_is_no_mask_is_blamed_on_the_program(program, scan):
    program.write("pathlib.Path(sys.argv[2]).write_text('mask')")
    check_said(program, scan, "what it wrote is no mask: ", "mask.nii.gz: ")


def test_an_empty_mask_is_blamed_on_the_program(program, scan):
    mask = program.save("mask.nii.gz", brain(0))
    program.write(f"shutil.copy({mask}, sys.argv[2])")
    check_said(program, scan, "the mask is empty")


def test_refuses_a_program_that_is_not_installed(scan):
    with pytest.raises(InputError) as error:
        run_command(check_command("no_such_bet {input} {output}"), scan)
    assert "no_such_bet '{input}' '{output}', for visit 1.nii.gz: cannot be" in str(error.value)
    assert str(error.value).endswith("is it installed?")


def test_a_command_is_split_into_words():
    words = check_command("bet {input} '--out={output}' \"two words\"")
    assert words == ["bet", "{input}", "--out={output}", "two words"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("bet {input} mask", r"\{output\} not in it; expected the command with both, such as"),
        ("bet {output}", r"\{input\} not in it"),
        ("bet", r"\{input\} and \{output\} not in it"),
        ("", r"\{input\} and \{output\} not in it"),
        ('bet "{input} {output}', "No closing quotation"),
    ],
)
def test_refuses_a_command_that_cannot_work_before_it_is_run(command, message):
    with pytest.raises(InputError, match=f"^--brain_mask_command={re.escape(command)}: {message}"):
        check_command(command)
