"""Train one network, or cross-validate."""
