"""Show new lesions: as an HTML page for one pair or for an evaluation, or as a single picture.

grey, drawn        turn voxels into grey values, and a pair into what all pictures show
slices             chooses the slices to show, and draws each as pictures with outlines
closeups           draws a lesion in three planes
checkerboard       shows how well the visits are aligned
packed, viewer     put both visits into the page, for the viewer (templates/viewer.js)
section            collects the pictures of one patient and the table of its lesions
charts             draws two plots of the cohort
page               writes everything into one self-contained HTML file
evaluation         writes the page of an evaluation
evaluation_folder  writes this page and the tables of the evaluation into one folder
snapshot           draws one slice of a pair as one picture, to follow a training
"""
