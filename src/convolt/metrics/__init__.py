"""What a split is measured by; a confusion matrix becomes rates here. Uses the rooms up to data."""
