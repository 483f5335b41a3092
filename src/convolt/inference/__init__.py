"""A trained run in use: evaluate, predict, export. Uses the rooms up to reports."""
