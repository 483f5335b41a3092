"""Convolt: image-classification ablations whose numbers can be trusted."""
