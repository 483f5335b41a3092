"""rerun=RUN_DIR: the same run once more, and whether its numbers are the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from convolt.cli.rerun import compare, describe_comparison, rerun
from convolt.errors import UserError
from convolt.system.files import add_digest, write_json


def test_a_rerun_has_the_same_bits_and_lies_beside(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train("augmentation=[crop,mixup]", "model.dropout=0.2", "trainer.find_batch_size=true")
    assert rerun(tmp_path / "run")
    again = json.loads((tmp_path / "run-rerun/result.json").read_text())
    assert (again["metrics"], again["batch_size"]) == (first["metrics"], first["batch_size"])
    assert again["config_hash"] == first["config_hash"]
    comparison = json.loads((tmp_path / "run-rerun/rerun.json").read_text())
    assert (comparison["equal"], comparison["compared"], comparison["metrics"]) == (
        True,
        len(first["metrics"]),
        {},
    )
    assert f"equal: all {len(first['metrics'])} metrics" in capsys.readouterr().out
    assert rerun(tmp_path / "run")
    assert (tmp_path / "run-rerun2/result.json").exists()


def test_what_differs_is_named_metric_by_metric_with_its_surroundings(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train()
    changed = first | {
        "metrics": first["metrics"] | {"test/accuracy": 0.5},
        "device": "another processor",
        "versions": first["versions"] | {"torch": "1.0"},
        "git_commit": "abc",
    }
    write_json(tmp_path / "run/result.json", add_digest(changed))
    assert not rerun(tmp_path / "run")
    said = capsys.readouterr().out
    now = first["metrics"]["test/accuracy"]
    assert f"test/accuracy: 0.5 then, {now} now ({now - 0.5:+.3g})" in said
    for line in ("device: another processor then, ", "torch: 1.0 then, ", "git_commit: abc then, "):
        assert line in said
    assert f"not equal: 1 of {len(first['metrics'])} metrics" in said


def test_a_difference_without_a_cause_names_the_usual_one() -> None:
    first = {"metrics": {"a": 1.0, "b": None}, "per_class": [1]}
    comparison = compare(first, {"metrics": {"a": 2.0}, "per_class": [2]})
    assert comparison["metrics"] == {"a": [1.0, 2.0]}
    assert comparison["tables"] == ["per_class"]
    assert any("trainer.deterministic=true" in line for line in describe_comparison(comparison, Path("a"), Path("b")))


def test_what_has_not_finished_or_was_edited_is_no_run_to_repeat(train: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no finished run \(result\.json is missing or damaged\)"):
        rerun(tmp_path / "nowhere")
    train("trainer.max_epochs=1")
    config = tmp_path / "run/.hydra/config.yaml"
    text = config.read_text()
    config.write_text(text.replace("lr: 0.001", "lr: 0.002"))
    with pytest.raises(UserError, match="is not what this run ran with"):
        rerun(tmp_path / "run")
    config.write_text(text[: len(text) // 2] + "]")
    with pytest.raises(UserError, match="is damaged"):
        rerun(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_command_leaves_with_0_only_where_all_is_equal(command_here: Any, train: Any, tmp_path: Path) -> None:
    first = train("trainer.max_epochs=1")
    done = command_here("rerun=run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("equal: all")
    write_json(tmp_path / "run/result.json", add_digest(first | {"metrics": {"test/accuracy": 2}}))
    done = command_here("rerun=run")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    done = command_here("rerun=run", "optim.lr=1")
    assert done.returncode == 2
    assert "takes no others" in done.stderr
