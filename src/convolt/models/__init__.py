"""Networks from shared blocks, and what can be told of any network. Uses the rooms up to config."""
