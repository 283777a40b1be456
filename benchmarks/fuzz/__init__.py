"""Fuzzing: give damaged files to the functions that read files, and look how they fail.

`python -m benchmarks.fuzz --help` lists the flags. An input passes if it is read correctly, or
refused with an InputError. Everything else is a finding:

- another exception, or a crash of the process;
- more than 5 s, or more than 1 GB of memory;
- a refusal because memory ran out, or with a message that is too long to be read;
- a value that differs from what an independent reader finds in the file.

Each target is a module of `benchmarks.fuzz.targets` with

- `NAME`;
- `make(folder)`: write valid inputs, the seeds, into an empty folder;
- `mutate(rng, seeds, case)`: write one damaged input into the empty folder `case`; `rng` is a
  `random.Random`;
- `use(case)`: read the input as a command would, and check what was read.

The runner is our own, because the libraries do not fit. Hypothesis generates values for properties
of functions; it has no mutations of files, and no limits of memory. Atheris (libFuzzer) has no
wheels for Windows, gives each case as one string of bytes instead of a folder of files, and stops
at the first finding.
"""
