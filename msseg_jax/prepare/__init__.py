"""Turn two scans, as the scanner wrote them, into a pair that the network can read.

The pair is registered, has a brain mask, and is corrected for bias.

This package needs SimpleITK, nilearn and pydicom (the extra `prepare`). The only other package that
needs them is `simulate.synthetic`. `libraries` checks that they are installed, `request` describes
what to prepare, and `visit_facts` compares the dates of the visits. These three modules import none
of the libraries.

`scan` and the package `dicom` read the scans. `visits` finds the brains and registers the visits
(with `atlas`, `brain_mask` and `registration`). `middle` resamples both visits to the middle space,
and `bias` corrects their bias fields. `patient` runs all steps for one patient and writes a
`folder` with a `record` and a `picture`. `dataset` prepares many patients.
"""
