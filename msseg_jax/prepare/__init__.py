"""Turn two scans, as the scanner wrote them, into a pair that the network can read.

The pair is registered, has a brain mask, and is corrected for bias.

This package needs SimpleITK and nilearn (the extra `prepare`). The only other package that needs
them is `simulate.synthetic`. `libraries` checks that they are installed, and `request` describes
what to prepare. These two modules import neither library.

`scan` and `dicom` read the scans. `visits` finds the brains and registers the visits (with `atlas`,
`brain_mask` and `registration`). `middle` resamples both visits to the middle space, and `bias`
corrects their bias fields. `patient` runs all steps for one patient and writes a `folder` with a
`record` and a `picture`. `dataset` prepares many patients.
"""
