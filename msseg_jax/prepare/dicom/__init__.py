"""Read a folder of DICOM files as one image.

Files are sorted into series by their headers, not by their names. Only series of single-frame files
can be read, as most MR scanners write them. Multi-frame ("enhanced") files are refused.

`header` reads one file without its voxels, with pydicom. `series` lists the series of a folder, and
chooses one. `stack` checks that its slices form one regular stack, and `acquisitions` chooses
between several stacks. `pixels` reads the voxels, and `reading` puts all of this together.
"""
