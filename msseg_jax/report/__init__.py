"""HTML pages to look at: one pair's new lesions, or a whole evaluation.

view      a volume as axial slices, in radiological convention
slices    which slices to show, and each as pictures with outlines
charts    the cohort in two plots
page      everything into one self-contained HTML file
"""
