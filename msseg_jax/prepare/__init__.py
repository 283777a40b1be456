"""From the scanner's files to a pair that the network can read: registered, masked, bias-corrected.

It needs SimpleITK and nilearn (`requirements-prepare.txt`); nothing else of this project does.
`request` says what is wanted, `scan` and `dicom` read it, `visits` finds the brains and brings the
visits together (with `atlas`, `brain_mask`, `registration`), `middle` resamples them half-way,
`bias` evens their brightness, and `patient` writes it all down, with a `picture`.
"""
