"""A run on disk: its directory, checkpoints, predictions, history. Uses the rooms up to metrics."""
