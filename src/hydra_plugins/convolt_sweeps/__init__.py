"""Hydra's plugins of Convolt: the study sweeper and the launchers. Imported at every start: no torch here."""
