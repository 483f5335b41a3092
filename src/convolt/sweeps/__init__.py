"""Many runs: studies, sweeps, and the launchers that run them. Uses the rooms up to inference."""
