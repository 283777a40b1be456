"""The picture in the README: a held-out phantom of the demo, its prediction and its reference.

python docs/picture.py runs/demo phantom_008 docs/result.png
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

RUN, PATIENT, OUTPUT = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])


def canonical(path: Path) -> np.ndarray:
    """(X, Y, Z) towards right, anterior, superior."""
    return nib.as_closest_canonical(nib.load(path)).get_fdata()


folder = RUN / "phantoms" / PATIENT
visits = [canonical(folder / f"flair_time0{k}_on_middle_space.nii.gz") for k in (1, 2)]
reference = canonical(folder / "ground_truth.nii.gz") > 0
brain = canonical(folder / "brain_mask.nii.gz") > 0
prediction = canonical(RUN / "predictions" / f"{PATIENT}.nii.gz") > 0
# The three axial slices with most new lesion, apart from each other.
area = reference.sum((0, 1)).astype(float)
slices = []
for _ in range(3):
    if area.max() <= 0:  # fewer than three places
        area = np.where(area < 0, -1, brain.sum((0, 1)))  # then where there is most brain
    slices.append(int(area.argmax()))
    area[max(0, slices[-1] - 4) : slices[-1] + 5] = -1

figure, axes = plt.subplots(3, 3, figsize=(7.5, 9.2), facecolor="black")
titles = ("first visit", "second visit", "new: reference (green), predicted (red)")
for row, k in zip(axes, sorted(slices), strict=True):
    for axis, visit in zip(row, (*visits, visits[1]), strict=True):
        top = np.percentile(visit[brain], 99.8)
        axis.imshow(visit[:, :, k].T, cmap="gray", origin="lower", vmin=0, vmax=top)
        axis.axis("off")
    for mask, colour, width in ((prediction, "red", 1.8), (reference, "lime", 0.9)):
        if mask[:, :, k].any():
            row[2].contour(mask[:, :, k].T, [0.5], colors=colour, linewidths=width)
for axis, title in zip(axes[0], titles, strict=True):
    axis.set_title(title, color="white", fontsize=9)
figure.tight_layout(pad=0.4)
figure.savefig(OUTPUT, dpi=110, facecolor="black")
