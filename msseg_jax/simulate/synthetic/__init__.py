"""Labelled pairs made from unlabelled FLAIR scans and from lesion masks of other patients.

    msseg synthetic --scans SCANS --masks MASKS --output ROOT

Each scan becomes two visits that differ like two real ones. New lesions are painted into the second
visit only. Lesions that persist, grow, shrink, fade or vanish are painted too. If the lesions of
the scan itself are known, some of them are erased from one visit, wholly or in part. Label maps
show what is new, what has grown and what has gone, and all lesions of each visit.

The anatomy and the shapes, positions and contrasts of the lesions come from real images. Only the
difference between the visits is simulated.

The modules, from the outermost to the innermost:

writer    folders and files
pair      makes one pair from a scan
marks     where the lesions of a pair are, and the label maps that follow from it
visit     simulates the scan of a visit
anatomy   normal structures that can look like a change: fluid spaces, bright lines, flow
erase     removes a lesion from an image
paint     adds a lesion to an image
plan      draws the lesions
sessions  draws the settings of the scanner, of the patient's head and of the masks
bank      lesions of real masks
source    reads scans and registers them to the atlas
fields    smooth random functions
"""
