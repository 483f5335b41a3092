"""The Python interface: train, study, load, and what they return. Thin: all numbers come from the rooms before it."""
