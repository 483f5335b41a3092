"""The score of a tuning trial's run."""

import math

from convolt.sweeps.tuning import trial_score


def test_the_score_is_the_monitor_at_the_checkpoint_that_would_be_tested() -> None:
    result = {"metrics": {"val/accuracy": 0.9, "val/loss": 0.3}, "last_metrics": {"val/accuracy": 0.8}}
    assert trial_score(result, "val/accuracy", last=False) == 0.9
    assert trial_score(result, "val/accuracy", last=True) == 0.8
    assert trial_score(result, "val/loss", last=False) == 0.3
    assert trial_score(result, "val/loss", last=True) is None


def test_a_diverged_trial_has_no_score() -> None:
    assert trial_score({"diverged": True, "metrics": {}, "last_metrics": {}}, "val/accuracy", last=False) is None
    assert trial_score({"metrics": {"val/loss": None}}, "val/loss", last=False) is None  # infinite, as JSON has it
    assert trial_score({"metrics": {"val/loss": math.nan}}, "val/loss", last=False) is None
