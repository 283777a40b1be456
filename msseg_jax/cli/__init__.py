"""The command line: `msseg COMMAND`, which is the same as `python -m msseg_jax COMMAND`.

Each command has two modules with its name. `flags/<command>.py` declares its flags and imports
nothing slow, so `--help` answers at once. `<command>.py` does the work: its `run(flags)` returns
the exit status. `main` parses the flags, sets the number of threads, and only then imports the
module that does the work.
"""
