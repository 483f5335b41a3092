"""Figures of a network and its predictions, from arrays. Uses the rooms up to tasks."""
