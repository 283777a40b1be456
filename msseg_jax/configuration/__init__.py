"""The configuration: define, read, check, change and compare its fields."""
