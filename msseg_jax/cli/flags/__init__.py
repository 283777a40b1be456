"""What each command accepts. One module per command, all of one form:

EXAMPLES         command lines to start from, without the program's name
DESCRIPTION      what the command does
add_flags        declares the flags on a parser
OVERRIDES        if it stands: the command also takes fields of the configuration
check            if there is one: reports flags that contradict each other (`parser.error`) and
                 what is missing; reads the configuration; may choose another module for the work

Nothing here may import NumPy, JAX or anything else that takes long.
"""
