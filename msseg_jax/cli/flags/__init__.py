"""The flags of each command, in one module per command.

Every module defines:

EXAMPLES         command lines to start from, without the name of the program
DESCRIPTION      what the command does
add_flags        declares the flags on a parser
OVERRIDES        optional; if set, the command also takes fields of the configuration
check            optional; reports flags that contradict each other (with `parser.error`) and
                 missing libraries, reads the configuration, and may choose another module for the
                 work by setting `flags.work`

Metavariables mean the same in all commands: ROOT is a folder with one folder per patient, DIR
another folder, FILE a file, OUT a file or, with --dataset, a folder, and SCAN a NIfTI file or a
folder of DICOM files. Each help text must be understandable by itself, because the reference pages
quote it: what the flag does, its unit, its default.

These modules may not import NumPy, JAX or anything else that is slow to import.
"""
