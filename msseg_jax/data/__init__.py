"""From an MSSEG-2 folder to training patches, in NumPy and SciPy."""
