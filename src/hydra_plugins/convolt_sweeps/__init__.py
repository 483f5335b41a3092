"""Hydra's plugins of Convolt: the study sweeper and the local launcher. Imported at every start: no torch here."""
