"""Convolt: image-classification ablations whose numbers can be trusted."""

__version__ = "0.1.0"
