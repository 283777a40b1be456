"""From two visits to files that say what is new.

tiles        how a volume is covered by tiles, and put together again
forward      a volume through a network, tile by tile
predictor    one trained network with its preprocessing
ensemble     several of them as one
new_lesions  a probability map cut into lesions
prediction   one pair, from its files to its new lesions
scans        the same from scans: prepare first, then bring the result to the scanner's grid
outputs      where results go
report       the page of a prediction
results      a prediction as files and in words
patients     many pairs, one after the other
"""
