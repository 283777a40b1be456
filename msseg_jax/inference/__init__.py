"""Inference: find the new lesions of a pair, and write the results.

tiles        cover a volume with tiles, and average their results
forward      apply a network to a volume, tile by tile
mirrors      average the maps of a network over mirror images
predictor    one trained network with its preprocessing
ensemble     several trained networks, averaged
new_lesions  turn probability maps into new lesions and other changes
prediction   read one pair and find its new lesions
scans        the same for scans: prepare them first, and resample the result to the scanner's grid
outputs      paths of the results
report       the HTML report of a prediction
record       what the results of a patient were made from, as a file next to its mask
results      write a prediction to files, and describe it as text
patients     predict many pairs, one after the other
"""
