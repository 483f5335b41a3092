"""Images with labels: sources, prepared arrays, whole-batch loading and augmentation. Uses the rooms up to models."""
