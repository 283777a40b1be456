"""The configuration: every field with its name, unit, range and default, defined once."""
