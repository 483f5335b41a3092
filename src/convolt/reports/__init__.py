"""Tables and figures over many runs: collect, statistics, tables, figures, page. Uses the rooms up to training."""
