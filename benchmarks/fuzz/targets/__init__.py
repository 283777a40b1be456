"""The targets of fuzzing, one per module. `benchmarks.fuzz` describes their interface."""
