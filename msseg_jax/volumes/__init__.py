"""NIfTI volumes, their grids, and their lesions."""
