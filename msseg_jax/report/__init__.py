"""What to look at: HTML pages of one pair's new lesions or of a whole evaluation, and a snapshot.

view               a volume as axial slices, in radiological convention
slices             which slices to show, and each as pictures with outlines
section            one patient's pictures and table of lesions
charts             the cohort in two plots
page               everything into one self-contained HTML file
evaluation         the page of an evaluation
evaluation_folder  that page and the tables, in one folder
snapshot           one slice of a pair as one picture, for a training to show how far it is
"""
