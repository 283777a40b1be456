"""Labelled pairs made from unlabelled FLAIR scans and from lesion masks of other patients.

    msseg synthetic --scans SCANS --masks MASKS --output ROOT

Each scan becomes two visits that differ like two real ones. New lesions are painted into the second
visit only. Lesions that persist, grow, fade or vanish are painted too; they are not labelled. The
anatomy and the shapes, positions and contrasts of the lesions come from real images. Only the
change between the visits is simulated.

The modules, from the outermost to the innermost: `writer` (folders and files), `pair` (makes one
pair from a scan), `plan` (draws the lesions and the settings of the scanner), `source` (reads scans
and registers them to the atlas), `bank` (lesions of real masks), `paint` (adds a lesion to an
image), `erase` (removes a lesion from an image), `visit` (simulates the scan of a visit), `fields`
(smooth random functions).
"""
