"""Prepare an MSSEG-2 folder and sample training patches from it, with NumPy and SciPy."""
