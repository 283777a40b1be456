# Find new lesions with the Python functions of msseg_jax.
#
#     python docs/start/in_python.py FOLDER
#
# An artificial patient stands for your scans, so this runs without data. Everything is written
# into FOLDER.

# %% An artificial patient: two visits on one grid, a brain mask, and the true new lesions
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np

import msseg_jax

folder = Path(sys.argv[1])
phantoms = ["--output", folder, "--patients", "1", "--spacing_mm", "1.5", "--seed", "3"]
subprocess.run([sys.executable, "-m", "msseg_jax", "phantom", *phantoms], check=True)
patient = folder / "phantom_001"
time01 = patient / "flair_time01_on_middle_space.nii.gz"
time02 = patient / "flair_time02_on_middle_space.nii.gz"
brain_mask = patient / "brain_mask.nii.gz"

# %% Find the new lesions. Without `model`, the released weights are used.
found = msseg_jax.find_new_lesions(time01, time02, brain_mask)
print(found)
print(found.lesions.to_string(index=False))
for warning in found.warnings:
    print("warning:", warning)

# %% Save the mask, the probability map and the report
results = folder / "results"
results.mkdir(exist_ok=True)
found.save(
    results / "new.nii.gz",
    probability=results / "probability.nii.gz",
    report=results / "new.html",
)

# %% Score the mask against the true lesions
scores = msseg_jax.score_mask(results / "new.nii.gz", patient / "ground_truth.nii.gz")
assert scores["detected"] > 0
print(f"Dice {scores['Dice']:.2f}, {scores['detected']} of {scores['reference_lesions']} found")

# %% Arrays work as well. Load the model once to use it for many pairs.
model = msseg_jax.load_model()
image = nibabel.load(time01)
again = msseg_jax.find_new_lesions(
    image.get_fdata(),
    nibabel.load(time02).get_fdata(),
    nibabel.load(brain_mask).get_fdata(),
    affine=image.affine,
    model=model,
    threshold=0.3,
)
print(f"with a threshold of 0.3: {again}")
assert np.all(again.mask >= found.mask)  # a lower threshold can only add voxels
