"""Tables and figures over many runs, from their records to the page. Uses the rooms up to training."""
