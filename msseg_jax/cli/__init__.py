"""The command line: `msseg COMMAND`, the same as `python -m msseg_jax COMMAND`.

A command is two modules of one name. `flags/<command>.py` declares its flags and imports nothing
heavy, so that `--help` answers at once. `<command>.py` does the work: its `run(flags)` returns the
exit status. `main` parses, sets the number of threads, and only then imports the work.
"""
