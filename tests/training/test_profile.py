import json
from pathlib import Path
from typing import Any

import pytest

from convolt.training.callbacks.profile import STEPS_TO_TRACE, TRACE


@pytest.mark.parametrize("more", [[], ["data.val_fraction=0", "scheduler=constant"], ["data.train_size=128"]])
def test_the_profile_preset_leaves_a_trace_and_the_phases_of_an_epoch(
    train: Any, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    result = train("debug=profile", "data.batch_size=64", "trainer.max_epochs=5", *more)
    assert result["epochs"] == 2
    folder = tmp_path / "run" / "profile"
    trace = json.loads((folder / TRACE).read_text())["traceEvents"]
    steps = {event["name"] for event in trace if event.get("name", "").startswith("ProfilerStep")}
    batches = result["images"]["train"] // 64
    assert len(steps) in (min(STEPS_TO_TRACE, batches), min(STEPS_TO_TRACE, batches - 1))
    assert any(event.get("name") == "aten::convolution_backward" for event in trace)
    assert (
        "aten::mkldnn_convolution" in (folder / "operators.txt").read_text()
        or "aten::convolution" in (folder / "operators.txt").read_text()
    )

    lines = [line.split() for line in (folder / "epoch.txt").read_text().splitlines()]
    seconds = {" ".join(line[:-3]): float(line[-3]) for line in lines}
    phases = [
        "data",
        "forward",
        "backward",
        "optimizer",
        *([] if more[:1] == ["data.val_fraction=0"] else ["validation"]),
    ]
    assert list(seconds) == [*phases, "writing", "epoch"]
    assert sum(seconds.values()) - seconds["epoch"] == pytest.approx(seconds["epoch"], abs=0.004)
    assert all(seconds[phase] > 0 for phase in ("forward", "backward", "optimizer"))
    assert "where epoch 2 spent its time" in capsys.readouterr().out
