"""Many runs by one command: studies and sweeps, and the processes that run them."""
