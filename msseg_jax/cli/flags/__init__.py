"""What each command accepts. One module per command, all of one form:

EXAMPLES         command lines to start from, without the program's name
DESCRIPTION      what the command does
add_flags        declares the flags on a parser
check            reports flags that contradict each other, through `parser.error`

Nothing here may import NumPy, JAX or anything else that takes long.
"""
