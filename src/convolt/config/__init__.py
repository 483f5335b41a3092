"""Settings: composed by Hydra, checked, stored, and turned into objects. Uses system."""
