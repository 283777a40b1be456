"""Score predicted masks against reference masks."""
