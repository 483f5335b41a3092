"""One run, from settings to result: run.py tells it. Uses the rooms up to figures."""
