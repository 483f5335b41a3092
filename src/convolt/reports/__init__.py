"""Tables and figures over many runs: records, statistics, study_tables, study_figures. Uses the rooms up to training."""
