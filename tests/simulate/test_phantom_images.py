"""Contents of the images and maps of a phantom.

The voxels are 2.5 or 3.5 mm wide, so that a patient takes only two or three seconds.
"""

import numpy as np
import pytest
from scipy import ndimage

from msseg_jax.data.quality import LEAST_SURFACE
from msseg_jax.simulate.phantom import consensus, plan_patient, render_patient
from msseg_jax.simulate.phantom.acquisition import image_grid, work_grid
from msseg_jax.simulate.phantom.experts import count_components
from msseg_jax.simulate.phantom.head import build_head
from msseg_jax.volumes.contrast import surface_to_depth
from msseg_jax.volumes.layout import BRAIN_MASK, CONSENSUS, EXPERT, TIME01, TIME02
from tests.support.patients import PATIENT_FILES

SPACING_MM = 2.5


def positive_index(lesions):
    """Return the index of a patient of seed 0 with exactly this many new lesions."""
    return next(i for i in range(40) if len(plan_patient(0, i).new_lesions_mm3) == lesions)


@pytest.fixture(scope="module")
def many():
    """Render a patient with nine new lesions, with larger voxels than planned."""
    plan = plan_patient(0, positive_index(9))
    return plan, render_patient(plan, SPACING_MM)


@pytest.fixture(scope="module")
def none():
    """Render a patient without new lesions."""
    plan = plan_patient(0, positive_index(0))
    return plan, render_patient(plan, 3.5)


def test_all_volumes_have_the_same_grid(many):
    _, patient = many
    assert set(patient.volumes) == PATIENT_FILES
    assert len({volume.shape for volume in patient.volumes.values()}) == 1
    np.testing.assert_allclose(np.linalg.norm(patient.affine[:3, :3], axis=0), SPACING_MM)


def test_the_consensus_contains_the_planned_lesions(many):
    plan, patient = many
    truth = patient.volumes[CONSENSUS]
    assert count_components(truth) == len(plan.new_lesions_mm3) == 9
    assert truth.sum() * SPACING_MM**3 == pytest.approx(sum(plan.new_lesions_mm3), rel=0.2)
    experts = np.stack([patient.volumes[EXPERT.format(n)] for n in (1, 2, 3, 4)])
    np.testing.assert_array_equal(truth, consensus(experts))


def test_experts_differ_but_mostly_agree(many):
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
    """Divide an image by its median in the brain, which is close to the signal of white matter."""
    image = patient.volumes[name].astype(float)
    return image / np.median(image[patient.volumes[BRAIN_MASK] > 0])


def test_new_lesions_are_bright_only_in_the_second_visit(many):
    _, patient = many
    labels, count = ndimage.label(patient.volumes[CONSENSUS], np.ones((3, 3, 3)))
    change = relative_to_white(patient, TIME02) - relative_to_white(patient, TIME01)
    brain = patient.volumes[BRAIN_MASK] > 0
    rise = np.array([change[labels == lesion].mean() for lesion in range(1, count + 1)])
    # The drawn contrasts are at least 0.28. The soft border lowers the mean of a lesion.
    assert (rise > 0.12).all()
    assert rise.mean() > 0.25
    assert abs(np.median(change[brain & (labels == 0)])) < 0.05


def test_both_visits_show_the_same_brain_outside_lesions(none):
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


def test_the_brain_mask_covers_the_labels_and_has_the_size_of_a_brain(many, none):
    for _, patient in (many, none):
        brain = patient.volumes[BRAIN_MASK] > 0
        for n in (1, 2, 3, 4):
            assert not (patient.volumes[EXPERT.format(n)][~brain] > 0).any()
        voxel_ml = abs(np.linalg.det(patient.affine[:3, :3])) / 1000
        assert 900 < brain.sum() * voxel_ml < 1900
        assert ndimage.label(brain)[1] == 1


def test_fluid_is_dark_and_grey_matter_is_brighter_than_white_matter():
    plan = plan_patient(0, 1)
    rng = plan.rng("anatomy")
    grid, _ = image_grid(plan, rng, (2.5,) * 3)
    head = build_head(work_grid(grid), rng)
    brain, signal = head.brain, head.signal[head.brain_box]
    # Few voxels of 2.5 mm contain only cortex. Therefore the signals of the pure tissues are
    # estimated by least squares.
    chosen = (brain.hull_mm < -3) & ~brain.infratentorial
    shares = [brain.white, brain.cortex, brain.fluid, *brain.nuclei.values()]
    columns = np.stack([share[chosen] for share in shares], axis=1)
    white, grey, fluid, *_ = np.linalg.lstsq(columns, signal[chosen], rcond=None)[0]
    assert white == pytest.approx(1, abs=0.06)
    assert 1.1 < grey < 1.4
    assert fluid < 0.4
    assert signal.min() >= 0
    # The tissue shares of each voxel add up to 1.
    total = brain.white + brain.cortex + brain.fluid + sum(brain.nuclei.values())
    np.testing.assert_allclose(total, 1, atol=1e-4)


def test_both_visits_look_like_flairs_to_the_check_of_predict(many):
    _, patient = many
    brain = patient.volumes[BRAIN_MASK] > 0
    for name in (TIME01, TIME02):
        image = patient.volumes[name].astype(np.float32)
        assert surface_to_depth(image, brain, SPACING_MM) >= LEAST_SURFACE
