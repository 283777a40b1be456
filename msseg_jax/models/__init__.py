"""Trained networks on disk: folders of runs, checkpoints, model files, released weights."""
