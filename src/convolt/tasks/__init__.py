"""LightningModules: what is trained, with which loss, metrics and schedules. Uses the rooms up to runs."""
