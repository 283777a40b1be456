"""Synthetic patients: the plan, the consensus rule, what the images show, what the files hold.

Volumes have voxels of 2.5 to 4 mm here: a patient then takes two or three seconds.
"""

import hashlib
import itertools
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from msseg_jax.data.dataset import BRAIN_MASK, CONSENSUS, EXPERT, TIME01, TIME02
from msseg_jax.data.phantom import (
    consensus,
    plan_patient,
    render_patient,
    write_phantoms,
)
from msseg_jax.data.phantom.acquisition import image_grid, small_motion, work_grid
from msseg_jax.data.phantom.experts import count_components
from msseg_jax.data.phantom.fields import Grid, stretch
from msseg_jax.data.phantom.plan import DECK, SCANNERS, STREAMS, positives_among

SPACING_MM = 2.5
NAMES = {TIME01, TIME02, CONSENSUS, BRAIN_MASK} | {EXPERT.format(n) for n in (1, 2, 3, 4)}


def digest(folder):
    """One hash per file, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def positive_index(lesions):
    """A patient of seed 0 with exactly this many new lesions."""
    return next(i for i in range(40) if len(plan_patient(0, i).new_lesions_mm3) == lesions)


@pytest.fixture(scope="module")
def many():
    """A patient with nine new lesions, rendered with larger voxels than planned."""
    plan = plan_patient(0, positive_index(9))
    return plan, render_patient(plan, SPACING_MM)


@pytest.fixture(scope="module")
def none():
    """A patient without new lesions."""
    plan = plan_patient(0, positive_index(0))
    return plan, render_patient(plan, 3.5)


# The plan.


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_forty_patients_have_the_figures_of_the_challenge(seed):
    plans = [plan_patient(seed, index, 40) for index in range(40)]
    counts = np.array([len(plan.new_lesions_mm3) for plan in plans])
    voxels = np.array([plan.new_lesion_voxels for plan in plans])
    positive = counts > 0
    assert positive.sum() == 29
    assert np.median(counts[positive]) == 3
    assert (counts[positive].min(), counts.max()) == (1, 32)
    assert (voxels[positive].min(), voxels.max()) == (20, 20000)
    assert not voxels[~positive].any()


@pytest.mark.parametrize(
    ("patients", "positives"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (10, 7), (20, 15), (40, 29)]
)
def test_positives_are_29_of_40_as_nearly_as_possible(patients, positives):
    assert positives_among(patients) == positives
    plans = [plan_patient(5, index, patients) for index in range(patients)]
    assert sum(bool(plan.new_lesions_mm3) for plan in plans) == positives


def test_positives_and_negatives_alternate_rather_than_cluster():
    flags = [bool(plan_patient(0, index).new_lesions_mm3) for index in range(40)]
    runs = [len(run) for run in "".join("+" if flag else "-" for flag in flags).split("-")]
    assert max(runs) <= 3
    assert not any(a is False and b is False for a, b in itertools.pairwise(flags))


def test_few_patients_already_cover_few_and_many_lesions():
    for seed in range(10):
        counts = [len(plan_patient(seed, index).new_lesions_mm3) for index in range(8)]
        assert 0 < min(filter(None, counts)) <= 2
        assert max(counts) >= 6


def test_a_plan_depends_on_seed_and_index_alone():
    assert plan_patient(3, 7, 8) == plan_patient(3, 7, 40) == plan_patient(3, 7)
    assert plan_patient(3, 7) != plan_patient(4, 7)


def test_every_random_stream_depends_on_seed_and_index():
    draws = [
        plan_patient(seed, index).rng(stream).random()
        for seed in (0, 1)
        for index in (0, 1)
        for stream in STREAMS
    ]
    assert len(set(draws)) == 4 * len(STREAMS)
    assert plan_patient(0, 0).rng("anatomy").random() == draws[STREAMS.index("anatomy")]


def test_planned_volumes_add_up_to_the_card_and_are_at_least_3_mm_wide():
    for index in range(40):
        plan = plan_patient(2, index)
        if plan.new_lesions_mm3:
            assert (len(plan.new_lesions_mm3), plan.new_lesion_voxels) in DECK
            assert min(plan.new_lesions_mm3) > 13.99  # a ball of 3 mm has 14.1 mm3


def test_voxels_go_from_half_a_millimetre_to_isotropic_1_2():
    sizes = {plan_patient(0, index).spacing_mm for index in range(40)}
    assert sizes == {spacing for spacing, _, _ in SCANNERS}
    volumes = [np.prod(size) for size in sizes]
    assert np.isclose(min(volumes), 0.5 * 0.75 * 0.75)
    assert np.isclose(max(volumes), 1.2**3)


def test_a_patient_outside_of_the_data_set_is_refused():
    with pytest.raises(ValueError, match="index=8, patients=8"):
        plan_patient(0, 8, 8)


# The consensus rule, by hand.


def lines(*rows):
    """Expert maps from one line of voxels each: (experts, 1, 1, voxels)."""
    return np.array([[[[c == "#" for c in row]]] for row in rows])


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        # Four drew it: a voxel needs two votes.
        (("###.", ".##.", ".###", ".#.."), ".##."),
        # Three drew it: half of three is 1.5, so two votes; one vote is not enough.
        (("##..", ".##.", ".##.", "...."), ".##."),
        # Two of four: not a lesion, however much they agree.
        (("###.", "###.", "....", "...."), "...."),
        # Components of the union: two experts left and two right of a bridge make one lesion
        # of four, each end of which has half of the votes.
        (("##..", "##..", "..##", "..##"), "####"),
        # Without contact they are two lesions of two experts each.
        (("##...", "##...", "...##", "...##"), "....."),
        # One lesion kept, another one of the same experts not.
        (("##.#.", "##...", "##.#.", "....."), "##..."),
        (("....", "....", "....", "...."), "...."),
    ],
)
def test_consensus_by_hand(rows, wanted):
    np.testing.assert_array_equal(consensus(lines(*rows)), lines(wanted)[0])


def test_consensus_joins_lesions_over_corners():
    masks = np.zeros((4, 2, 2, 2), np.uint8)
    masks[:2, 0, 0, 0] = 1
    masks[2:, 1, 1, 1] = 1
    # One lesion of four experts, each voxel with half of them.
    assert consensus(masks).tolist() == masks.any(0).tolist()


def test_consensus_refuses_a_single_map():
    with pytest.raises(ValueError, match=r"wanted \(experts, D, H, W\)"):
        consensus(np.zeros((4, 4, 4)))


# Geometry.


def test_a_resized_grid_covers_the_same_box():
    grid = Grid((10, 12, 14), np.diag([1.0, 2.0, 3.0, 1.0]))
    half = grid.resized((5, 6, 7))
    np.testing.assert_allclose(half.spacing_mm, [2, 4, 6])
    # The outer corner of the first voxel stays where it was.
    for g in (grid, half):
        np.testing.assert_allclose(g.to_head_mm @ [-0.5, -0.5, -0.5, 1], [-0.5, -1, -1.5, 1])


def test_stretching_keeps_a_constant_and_a_slope():
    np.testing.assert_allclose(stretch(np.full((4, 5, 6), 2.5, np.float32), (9, 7, 6)), 2.5)
    slope = np.arange(8, dtype=np.float32)[:, None, None] * np.ones((1, 3, 3), np.float32)
    fine = stretch(slope, (16, 3, 3))[:, 1, 1]
    np.testing.assert_allclose(fine[3:13], (np.arange(3, 13) - 0.5) / 2, atol=1e-5)


@pytest.mark.parametrize("index", range(0, 20, 3))
def test_affine_has_the_planned_voxels_and_directions(index):
    plan = plan_patient(1, index)
    grid, affine = image_grid(plan, plan.rng("anatomy"))
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), plan.spacing_mm)
    assert "".join(nib.aff2axcodes(affine)) == plan.orientation
    # A rotation at most, as a rigid patient in a rigid magnet.
    columns = affine[:3, :3] / plan.spacing_mm
    np.testing.assert_allclose(columns.T @ columns, np.eye(3), atol=1e-12)
    assert 215 < np.max(np.multiply(grid.shape, plan.spacing_mm)) < 250
    assert (work_grid(grid).spacing_mm > 0.99 * np.array(plan.spacing_mm)).all()


def test_motion_between_visits_stays_below_a_millimetre_and_a_degree():
    centre = np.array([0.0, -17.0, 0.0, 1.0])
    for seed in range(200):
        motion = small_motion(np.random.default_rng(seed))
        shift = np.linalg.norm((motion @ centre - centre)[:3])
        angle = np.rad2deg(np.arccos((np.trace(motion[:3, :3]) - 1) / 2))
        assert 0.09 < shift < 0.71
        assert 0.09 < angle < 0.71


# The rendered patient.


def test_all_volumes_share_one_grid(many):
    _, patient = many
    assert set(patient.volumes) == NAMES
    assert len({volume.shape for volume in patient.volumes.values()}) == 1
    np.testing.assert_allclose(np.linalg.norm(patient.affine[:3, :3], axis=0), SPACING_MM)


def test_the_consensus_holds_the_planned_lesions(many):
    plan, patient = many
    truth = patient.volumes[CONSENSUS]
    assert count_components(truth) == len(plan.new_lesions_mm3) == 9
    assert truth.sum() * SPACING_MM**3 == pytest.approx(sum(plan.new_lesions_mm3), rel=0.2)
    experts = np.stack([patient.volumes[EXPERT.format(n)] for n in (1, 2, 3, 4)])
    np.testing.assert_array_equal(truth, consensus(experts))


def test_experts_differ_but_agree_on_most(many):
    _, patient = many
    truth = patient.volumes[CONSENSUS] > 0
    for n in (1, 2, 3, 4):
        expert = patient.volumes[EXPERT.format(n)] > 0
        assert (expert != truth).any()
        assert 0.55 < 2 * (expert & truth).sum() / (expert.sum() + truth.sum()) < 1


def test_a_patient_without_new_lesions_has_an_empty_consensus(none):
    plan, patient = none
    assert plan.new_lesions_mm3 == ()
    assert not patient.volumes[CONSENSUS].any()
    assert not any(lesion.kind == "new" for lesion in patient.lesions)


def test_old_lesions_of_every_kind_exist_and_are_not_labelled(many, none):
    for _, patient in (many, none):
        kinds = {lesion.kind for lesion in patient.lesions}
        assert {"persistent", "enlarged", "faded", "vanished"} <= kinds
        to_voxel = np.linalg.inv(patient.to_head_mm)
        for lesion in patient.lesions:
            i, j, k = np.rint(to_voxel[:3, :3] @ lesion.centre_mm + to_voxel[:3, 3]).astype(int)
            if lesion.kind not in ("new", "doubtful"):
                assert lesion.contrast[0] > 0
                assert patient.volumes[CONSENSUS][i, j, k] == 0
                if lesion.kind == "enlarged":
                    assert lesion.volume_mm3[1] > 1.3 * lesion.volume_mm3[0]
                elif lesion.kind == "faded":
                    assert 0 < lesion.contrast[1] < 0.6 * lesion.contrast[0]
                elif lesion.kind == "vanished":
                    assert lesion.contrast[1] == 0
            elif lesion.kind == "new":
                assert lesion.contrast[0] == 0
                box = tuple(slice(max(c - 4, 0), c + 5) for c in (i, j, k))
                assert patient.volumes[CONSENSUS][box].any()


def relative_to_white(patient, name):
    """The image divided by its median in the brain: white matter, or nearly so."""
    image = patient.volumes[name].astype(float)
    return image / np.median(image[patient.volumes[BRAIN_MASK] > 0])


def test_new_lesions_are_bright_at_the_second_visit_only(many):
    _, patient = many
    labels, count = ndimage.label(patient.volumes[CONSENSUS], np.ones((3, 3, 3)))
    change = relative_to_white(patient, TIME02) - relative_to_white(patient, TIME01)
    brain = patient.volumes[BRAIN_MASK] > 0
    rise = np.array([change[labels == lesion].mean() for lesion in range(1, count + 1)])
    # Contrasts are drawn from 0.28 up; the soft border takes a part of it.
    assert (rise > 0.12).all()
    assert rise.mean() > 0.25
    assert abs(np.median(change[brain & (labels == 0)])) < 0.05


def test_outside_of_lesions_the_visits_show_the_same_brain(none):
    _, patient = none
    first, second = relative_to_white(patient, TIME01), relative_to_white(patient, TIME02)
    brain = patient.volumes[BRAIN_MASK] > 0
    assert not np.array_equal(first, second)
    assert np.corrcoef(first[brain], second[brain])[0, 1] > 0.85


def test_the_second_visit_has_another_intensity_scale(many):
    _, patient = many
    brain = patient.volumes[BRAIN_MASK] > 0
    first, second = (np.median(patient.volumes[name][brain]) for name in (TIME01, TIME02))
    assert 0.5 < second / first < 1.6
    assert abs(second / first - 1) > 0.01


def test_brain_mask_covers_the_labels_and_has_the_size_of_a_brain(many, none):
    for _, patient in (many, none):
        brain = patient.volumes[BRAIN_MASK] > 0
        for n in (1, 2, 3, 4):
            assert not (patient.volumes[EXPERT.format(n)][~brain] > 0).any()
        voxel_ml = abs(np.linalg.det(patient.affine[:3, :3])) / 1000
        assert 900 < brain.sum() * voxel_ml < 1900
        assert ndimage.label(brain)[1] == 1


def test_it_is_a_flair_fluid_dark_and_grey_brighter_than_white():
    from msseg_jax.data.phantom.head import build_head

    plan = plan_patient(0, 1)
    rng = plan.rng("anatomy")
    grid, _ = image_grid(plan, rng, (2.5,) * 3)
    head = build_head(work_grid(grid), rng)
    brain, signal = head.brain, head.signal[head.brain_box]
    # With voxels of 2.5 mm hardly any is all cortex: solve for the signals of the pure tissues.
    chosen = (brain.hull_mm < -3) & ~brain.infratentorial
    shares = [brain.white, brain.cortex, brain.fluid, *brain.nuclei.values()]
    columns = np.stack([share[chosen] for share in shares], axis=1)
    white, grey, fluid, *_ = np.linalg.lstsq(columns, signal[chosen], rcond=None)[0]
    assert white == pytest.approx(1, abs=0.06)
    assert 1.1 < grey < 1.4
    assert fluid < 0.4
    assert signal.min() >= 0
    # Shares of tissue fill each voxel.
    total = brain.white + brain.cortex + brain.fluid + sum(brain.nuclei.values())
    np.testing.assert_allclose(total, 1, atol=1e-4)


# The files.


def test_same_seed_same_bytes_whatever_the_number_of_processes_and_patients(tmp_path):
    one = write_phantoms(tmp_path / "one", 1, 4, jobs=1, spacing_mm=4.0)
    two = write_phantoms(tmp_path / "two", 2, 4, jobs=2, spacing_mm=4.0)
    assert one == two[:1]
    assert [summary.patient for summary in two] == ["phantom_001", "phantom_002"]
    first, second = digest(tmp_path / "one"), digest(tmp_path / "two")
    assert len(first) == 8
    assert len(second) == 16
    assert first == {name: second[name] for name in first}
    images = {"phantom_00{}/" + name for name in (TIME01, TIME02, BRAIN_MASK)}
    for image in images:  # another patient is another head
        assert second[image.format(1)] != second[image.format(2)]

    # What is on disk is complete, in the layout, and says mm and scanner coordinates.
    folder = tmp_path / "one" / "phantom_001"
    assert os.listdir(tmp_path / "one") == ["phantom_001"]
    assert {path.name for path in folder.iterdir()} == NAMES
    images = [nib.load(path) for path in folder.iterdir()]
    for image in images:
        np.testing.assert_array_equal(image.affine, images[0].affine)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.header["qform_code"] == image.header["sform_code"] == 1
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
    truth = np.asarray(nib.load(folder / CONSENSUS).dataobj)
    assert set(np.unique(truth)) <= {0, 1}
    assert truth.sum() == one[0].new_lesion_voxels > 0
    assert one[0].shape == truth.shape
    assert one[0].new_lesion_mm3 == pytest.approx(truth.sum() * 4.0**3)
    for image in (TIME01, TIME02):
        assert np.asarray(nib.load(folder / image).dataobj).std() > 0

    # A patient that is there stays as it is, unless it may be replaced.
    (folder / CONSENSUS).write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"already holds 1 of the 2 .* --overwrite"):
        write_phantoms(tmp_path / "one", 2, 4, jobs=1, spacing_mm=4.0)
    assert (folder / CONSENSUS).read_bytes() == b"mine"
    write_phantoms(tmp_path / "one", 1, 4, jobs=1, spacing_mm=4.0, overwrite=True)
    assert digest(tmp_path / "one") == first


def test_a_failure_leaves_neither_a_half_patient_nor_scratch(tmp_path, monkeypatch):
    from msseg_jax.data.phantom import writer

    written = []

    def fails_late(path, volume, affine):
        path.write_bytes(b"half")
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(writer, "write_volume", fails_late)
    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path, 1, 0, jobs=1, spacing_mm=4.0)
    assert len(written) == 3
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patients": 0}, "--patients=0: wanted 1 or more"),
        ({"seed": -1}, "--seed=-1: wanted 0 or more"),
        ({"jobs": 0}, "--jobs=0: wanted 1 or more"),
        ({"spacing_mm": 9.0}, "--spacing_mm=9.0: wanted a voxel size from 0.5 to 4 mm"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(tmp_path, arguments, message):
    settings = {"patients": 1, "seed": 0, **arguments}
    patients, seed = settings.pop("patients"), settings.pop("seed")
    with pytest.raises(ValueError, match=message):
        write_phantoms(tmp_path / "new", patients, seed, **settings)
    assert not (tmp_path / "new").exists()


def test_an_output_that_cannot_be_written_is_refused_with_its_name(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"--output=.*file.*: cannot write there"):
        write_phantoms(tmp_path / "file", 1, 0)


def test_command_line_writes_prints_a_table_and_does_not_load_jax(tmp_path):
    code = (
        "import sys, runpy\n"
        "try:\n"
        "    runpy.run_module('msseg_jax.data.phantom', run_name='__main__')\n"
        "finally:\n"
        "    assert 'jax' not in sys.modules\n"
    )
    flags = [f"--output={tmp_path}", "--patients=1", "--seed=0", "--jobs=1", "--spacing_mm=4"]
    run = [sys.executable, "-c", code, *flags]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    header, row = done.stdout.splitlines()
    assert header.split() == ["patient", "voxel,", "mm", "shape", "new", "lesions", "voxels", "mm3"]
    assert row.startswith("phantom_001  4 x 4 x 4")
    assert (tmp_path / "phantom_001" / BRAIN_MASK).exists()
    again = subprocess.run(run, capture_output=True, text=True)
    assert again.returncode != 0
    assert "phantom: --output=" in again.stderr
    assert "--overwrite" in again.stderr
    assert "Traceback" not in again.stderr
