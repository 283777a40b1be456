"""From the scanner's files to a pair that the network can read: registered, masked, bias-corrected.

It needs SimpleITK and nilearn (the extra `prepare`); of this project, only this and
`simulate.synthetic` do. `libraries` checks that they are there, and `request` says what to prepare;
both import neither. `scan` and `dicom` read the scans, `visits` finds the brains and brings the
visits together (with `atlas`, `brain_mask`, `registration`), `middle` resamples them half-way,
`bias` evens their brightness. `patient` does all of it for one patient, into a `folder`, with a
`record` and a `picture`; `dataset` does it for many.
"""
