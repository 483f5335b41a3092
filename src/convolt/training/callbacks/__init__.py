"""What a run does at the start, at the end of an epoch and at its end: Lightning callbacks."""
