"""New multiple-sclerosis lesions between two FLAIR visits: a Siamese MPU-net in JAX."""

__version__ = "0.1.0"
