"""Make the released weights: make pairs from public scans, train on them, test, and export.

Usage, from the root of the repository:
python -m benchmarks.weights DATA WORK [--only STEP ...] [--networks NAME ...]

DATA holds the scans, in the folders that SOURCES names. Everything is written below WORK. What
exists there is not made again, so the same command resumes after an interruption. The steps are:

scans    link the scans and masks: WORK/scans, WORK/masks
pairs    make the pairs for training: WORK/pairs/<network>
train    train the networks: WORK/runs/<network>
tests    make pairs from scans that a network has not seen: WORK/tested/<set>
predict  predict these pairs: WORK/predicted/<network>/<set>/flips<N>
export   count how reliable the marked lesions are, and write the model file: WORK/NAME.safetensors
"""

import argparse
import itertools
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

MSSEG = (sys.executable, "-m", "msseg_jax")


@dataclass(frozen=True)
class Source:
    """Scans of one centre."""

    folders: tuple[str, ...]  # below DATA; each holds one folder per patient
    has_lesions: bool = True


# The two real pairs with known new lesions. No network sees them.
TESTED = ("01", "03")
TESTED_FOLDER = "open_ms/longitudinal"
PATIENTS = "patients"  # the set of pairs that are made from their scans

SOURCES = {
    "ljubljana": Source(("open_ms/single", "open_ms/cross_sectional", TESTED_FOLDER)),
    "tabriz": Source(("tabriz",)),
    "mslesseg": Source(("mslesseg",)),
    "healthy": Source(("healthy",), has_lesions=False),
}
# Pairs made from each scan for a test, by source.
TEST_PAIRS = {"ljubljana": 4, "mslesseg": 10, "tabriz": 2, PATIENTS: 10}


@dataclass(frozen=True)
class Lesions:
    """Lesion masks from which shapes and places are taken, and the pairs that are made with them.

    There are few 3D scans, so they give more pairs than those with thick slices.
    """

    masks: str  # folder of masks in MNI space, below DATA or WORK
    shapes: str  # folder of masks in other spaces
    pairs: dict[str, int]  # pairs from each scan, by source
    brain_size: float = 1.0  # of the brains of `masks`


LESIONS = {
    "of_ljubljana": Lesions(
        "open_ms/lesion_masks/mni", "open_ms/lesion_masks/change",
        {"ljubljana": 16, "mslesseg": 20, "healthy": 20, "tabriz": 7}, brain_size=0.9,
    ),
    "of_others": Lesions(
        "masks/mslesseg", "masks/tabriz", {"mslesseg": 30, "healthy": 20, "tabriz": 7}
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A network, and what it is trained on."""

    lesions: str
    sources: tuple[str, ...]
    unseen: str  # source on which it is tested
    fields: tuple[str, ...] = ()  # of the configuration, if they differ


# Each source but the healthy head is unseen by one network.
NETWORKS = {
    "no_ljubljana": Network("of_others", ("mslesseg", "healthy", "tabriz"), "ljubljana"),
    "no_tabriz": Network("of_ljubljana", ("ljubljana", "mslesseg", "healthy"), "tabriz"),
    "no_mslesseg": Network("of_ljubljana", ("ljubljana", "healthy", "tabriz"), "mslesseg"),
}
# Two other ways to train on the pairs of the last one: only on new lesions, and with all lesions
# as targets of the decoder maps of the segmentation block.
COMPARED = {
    "new_only": replace(NETWORKS["no_mslesseg"], fields=("--config.model.targets=1",)),
    "decoders": replace(
        NETWORKS["no_mslesseg"],
        fields=("--config.model.targets=3", "--config.train.decoder_weight=0.5"),
    ),
}
ALL = NETWORKS | COMPARED

FLIPS = (1, 4)  # numbers of mirror images that are compared

# The model file, and its options. The model card has the figures by which they were chosen, and
# what was known about the real pairs.
NAME, VERSION = "flair_changes", "1"
OPTIONS = {"threshold": 0.5, "min_lesion_mm3": 15, "min_peak": 0.9, "flips": 1}
TEXTS = {
    "licence": "Apache-2.0",
    "attribution": """\
Trained on data of the Laboratory of Imaging Technologies, University of Ljubljana, released under \
Creative Commons Attribution (CC-BY): Lesjak, Pernus, Likar, Spiclin: Validation of white-matter \
lesion change detection methods on a novel publicly available MRI image database, Neuroinformatics \
2016; Lesjak et al.: A novel public MR image dataset of multiple sclerosis patients with lesion \
segmentations based on multi-rater consensus, Neuroinformatics 2017.
On scans and masks published with studies by M. Bashiri and others, Tabriz (repository \
MRI_MS_Insights and others), MIT License, Copyright (c) 2025-2026 Mahdi Bashiri / mri-ms-analyzer.
On scans and masks of MSLesSeg, released under CC-BY 4.0: Guarnera, Rondinella et al.: MSLesSeg: \
baseline and benchmarking of a new Multiple Sclerosis Lesion Segmentation dataset, 2025.
On the example image of the repository py_synthsr (neurolabusc), Apache-2.0.""",
    "training_data": """\
Pairs that msseg synthetic made from FLAIRs of 21 heads: Ljubljana 04, 07, 09, 20, 26; all 13 of \
Tabriz; MSLesSeg p18 and p39; one head without lesions. Each network lacks one source: the first \
has seen no scan and no mask of Ljubljana, the second no scan of Tabriz, the third no scan of \
MSLesSeg. No network has seen the patients 01 and 03 of Ljubljana. The shapes and places of the \
lesions come from masks of Ljubljana (27 and 16 patients); for the first network, from those of \
Tabriz and MSLesSeg.""",
    "description": """\
Three networks with five maps: new lesions, enlarging ones, vanished or shrunk ones, and all \
lesions at each visit. Made by benchmarks/weights.py with configs/changes.py. The model card says \
what they find and where they fail. For research, not for clinical use.""",
}
PAIRS = "{count} made pairs, of scans from three sources, each by the network without its source"


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument(
        "--networks", nargs="+", choices=ALL, default=list(NETWORKS),
        help="networks of all steps but export, which always writes the three released ones",
    )  # fmt: skip
    flags = parser.parse_args()
    for step in flags.only:
        STEPS[step](flags.data.resolve(), flags.work.resolve(), flags.networks)


def link_scans(data: Path, work: Path, names: list[str]) -> None:
    """Link all scans as WORK/scans/<source>/<source>_<patient>/, and their masks."""
    for name, source in SOURCES.items():
        for root in source.folders:
            for folder in sorted(path for path in (data / root).iterdir() if path.is_dir()):
                place = work / "scans" / name / f"{name}_{folder.name}"
                place.mkdir(parents=True, exist_ok=True)
                for file in folder.glob("*.nii.gz"):
                    _link(file, place / file.name)
                    if file.name.startswith("lesion_mask"):
                        _link(file, work / "masks" / name / f"{place.name}.nii.gz")
                if not source.has_lesions and not (place / "lesion_mask.nii.gz").exists():
                    scan = nib.load(folder / "FLAIR.nii.gz")
                    empty = np.zeros(scan.shape[:3], np.uint8)
                    nib.save(nib.Nifti1Image(empty, scan.affine), place / "lesion_mask.nii.gz")
    for patient in TESTED:
        for file in (data / TESTED_FOLDER / patient).glob("*.nii.gz"):
            _link(file, work / "scans" / PATIENTS / f"ljubljana_{patient}" / file.name)


def make_pairs(data: Path, work: Path, names: list[str]) -> None:
    """Make the pairs that the networks are trained on: WORK/pairs/<network>/."""
    for name in names:
        network = ALL[name]
        lesions = LESIONS[network.lesions]
        for source in network.sources:
            made = work / "made" / network.lesions / source
            _synthesise(data, work, source, lesions, made, lesions.pairs[source], seed=0)
            for pair in made.iterdir():
                if not pair.name.startswith("."):
                    _link(pair, work / "pairs" / name / pair.name)


def make_test_pairs(data: Path, work: Path, names: list[str]) -> None:
    """Make pairs from the scans that the networks have not seen: WORK/tested/<set>/."""
    for name in _sets(names):
        made = work / "tested" / name
        _synthesise(data, work, name, LESIONS["of_ljubljana"], made, TEST_PAIRS[name], seed=1)


def _sets(names: list[str]) -> list[str]:
    """Return the sets of pairs on which networks are tested, each once."""
    return [*dict.fromkeys(ALL[name].unseen for name in names), PATIENTS]


def _synthesise(
    data: Path, work: Path, source: str, lesions: Lesions, output: Path, pairs: int, seed: int
) -> None:
    """Make pairs from the scans of a source, but not from the tested pairs or their masks."""
    tested = [f"{source}_{patient}" for patient in TESTED] if source == "ljubljana" else []
    if "open_ms" in lesions.masks:
        tested += TESTED  # the names of the masks
    command = [
        *MSSEG, "synthetic", f"--scans={work / 'scans' / source}", "--find_brains",
        f"--masks={_masks(data, work, lesions.masks)}",
        f"--shapes={_masks(data, work, lesions.shapes)}",
        f"--brain_size={lesions.brain_size}", f"--pairs={pairs}", f"--seed={seed}",
        *(f"--leave_out={one}" for one in tested), f"--output={output}",
    ]  # fmt: skip
    subprocess.run(command, check=True)


def train(data: Path, work: Path, names: list[str]) -> None:
    """Train the networks, or resume their trainings: WORK/runs/<network>/."""
    for name in names:
        command = [
            sys.executable, "launch.py", "--config=configs/changes.py",
            f"--config.data.root={work / 'pairs' / name}",
            f"--config.data.cache_dir={work / 'cache'}", f"--workdir={work / 'runs' / name}",
            *ALL[name].fields,
        ]  # fmt: skip
        subprocess.run(command, check=True)


def predict(data: Path, work: Path, names: list[str]) -> None:
    """Predict the pairs that the networks have not seen: WORK/predicted/<network>/<set>/."""
    for name in names:
        maps = ("probability", "lesions02") if name in NETWORKS else ("probability",)
        for tested, flips in itertools.product((ALL[name].unseen, PATIENTS), FLIPS):
            place = work / "predicted" / name / tested / f"flips{flips}"
            command = [
                *MSSEG, "predict", f"--model={work / 'runs' / name}", f"--flips={flips}",
                f"--dataset={work / 'tested' / tested}", f"--output={place / 'new'}",
                *(f"--{one}={place / one}" for one in maps),
            ]  # fmt: skip
            subprocess.run(command, check=True)


def export(data: Path, work: Path, names: list[str]) -> None:
    """Count how reliable the marked lesions are, and write the networks to one model file."""
    folders, count = [], 0
    for name in NETWORKS:
        unseen = work / "tested" / NETWORKS[name].unseen
        maps = work / "predicted" / name / unseen.name / f"flips{OPTIONS['flips']}" / "probability"
        folders += [f"--reference={unseen}", f"--probability={maps}"]
        count += len(list(maps.glob("*.nii.gz")))
    options = [f"--{name}={value}" for name, value in OPTIONS.items()]
    table = work / "reliability.json"
    counting = [
        sys.executable, "-m", "benchmarks.reliability", *folders, *options,
        f"--pairs={PAIRS.format(count=count)}", f"--output={table}",
    ]  # fmt: skip
    subprocess.run(counting, check=True)
    exporting = [
        *MSSEG, "export", *(f"--model={work / 'runs' / name}" for name in NETWORKS),
        f"--output={work / NAME}.safetensors", f"--name={NAME}", f"--version={VERSION}",
        *(f"--{field}={text}" for field, text in TEXTS.items()),
        *options, f"--reliability={table}", "--overwrite",
    ]  # fmt: skip
    subprocess.run(exporting, check=True)


def _masks(data: Path, work: Path, folder: str) -> Path:
    return data / folder if (data / folder).is_dir() else work / folder


def _link(file: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(file)


STEPS = {
    "scans": link_scans,
    "pairs": make_pairs,
    "train": train,
    "tests": make_test_pairs,
    "predict": predict,
    "export": export,
}

if __name__ == "__main__":
    main()
