"""Tables and figures over many runs: collect, statistics, tables, page. Uses the rooms up to training."""
