"""Networks from shared blocks, and what can be found out about any network. Uses the rooms up to config."""
