"""Labelled pairs out of real FLAIRs: scans that nobody has labelled, and lesions of other patients.

    msseg synthetic --scans SCANS --masks MASKS --output ROOT

A scan becomes two visits that differ as real ones do; into the second go lesions that the first
does not have, and into both what must not be taken for new. Everything that is seen is taken from
real images: the anatomy, the shapes, places and contrasts of the lesions. What is simulated is the
change.

From the outside in: `writer` (folders and files), `pair` (one pair, from a scan), `plan` (what is
drawn for it, all randomness of lesions), `source` (scans, and where the atlas lies in them),
`bank` (lesions of real masks), `paint` (a lesion in an image), `erase` (an image without one),
`visit` (what a scanner, another day, makes of it), `fields` (smooth random functions).
"""
