"""LightningModules that wrap any network of a task: loss, metrics, optimizer, schedule."""
