"""Checkpoints that a sweep does not keep: which go, in which order, and what commands say that want them later."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest

from convolt.errors import UserError
from convolt.inference.trained import TrainedRun
from convolt.runs import prune
from convolt.runs.checkpoints import intact_epochs
from convolt.runs.files import RunFiles, read_index
from convolt.runs.prune import prune_checkpoints
from convolt.system.files import write_json
from convolt.system.locks import make_lock
from convolt.training.extend import resumed_settings
from convolt.training.run import run

NAMES = {"best.ckpt", "epoch-0001.ckpt", "epoch-0002.ckpt"}
NOT_KEPT = r"its checkpoints were not kept \(hydra\.sweeper\.keep=none\): python train\.py rerun="


@pytest.fixture(scope="module")
def done(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs."""
    from convolt.config.compose import compose

    options = ["trainer.threads=1", "trainer.max_epochs=2", "scheduler=constant", "pictures.enabled=false"]
    folder = tmp_path_factory.mktemp("done") / "run"
    run(compose([f"data.root={data_root}", *options]), folder)
    return folder


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "run"))


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").glob("*")}


def test_all_is_left_as_it_is(folder: Path) -> None:
    before = RunFiles(folder).status()
    assert prune_checkpoints(folder, "all")
    assert names(folder) == {*NAMES, "index.json"}
    assert RunFiles(folder).status() == before


def test_best_keeps_the_tested_checkpoint(folder: Path) -> None:
    (folder / "checkpoints/epoch-0009.ckpt.unused").touch()
    for _ in range(2):
        assert prune_checkpoints(folder, "best")
        assert names(folder) == {"best.ckpt", "index.json"}
        assert set(read_index(folder / "checkpoints")) == {"best.ckpt"}
    assert intact_epochs(folder / "checkpoints/best.ckpt")
    assert TrainedRun(folder).task()
    with pytest.raises(UserError, match=r"not kept \(hydra\.sweeper\.keep=best\): python train\.py rerun="):
        resumed_settings(folder, [f"resume={folder}", "trainer.max_epochs=4"])


def test_a_last_checkpoint_that_was_tested_can_still_go_on(train: Any, tmp_path: Path) -> None:
    options = ("trainer.test=last", "scheduler=constant")
    train(*options)
    folder = tmp_path / "run"
    assert prune_checkpoints(folder, "best")
    assert names(folder) == {"epoch-0002.ckpt", "index.json"}
    cfg, change = resumed_settings(folder, [f"resume={folder}", "trainer.max_epochs=3"])
    longer = run(cfg, folder, change=change)
    assert longer["metrics"] == train(*options, "trainer.max_epochs=3", directory="whole")["metrics"]
    assert "keep" not in RunFiles(folder).status()


def test_none_removes_them_all_and_later_commands_say_so(settings: Any, folder: Path) -> None:
    assert prune_checkpoints(folder, "none")
    assert not (folder / "checkpoints").exists()
    assert prune_checkpoints(folder, "best")  # nothing comes back
    assert RunFiles(folder).status()["keep"] == "none"
    trained = TrainedRun(folder)
    with pytest.raises(UserError, match=NOT_KEPT):
        trained.task()
    with pytest.raises(UserError, match=f"init_from={folder}: {NOT_KEPT}"):
        settings(f"init_from={folder}")
    with pytest.raises(UserError, match=f"resume={folder}: {NOT_KEPT}"):
        resumed_settings(folder, [f"resume={folder}", "trainer.max_epochs=4"])


def test_a_run_that_was_to_start_from_them_says_so(settings: Any, folder: Path, tmp_path: Path) -> None:
    cfg = settings(f"init_from={folder}")
    prune_checkpoints(folder, "none")
    with pytest.raises(UserError, match=NOT_KEPT):
        run(cfg, tmp_path / "next")


def test_only_finished_runs_that_nobody_holds_are_pruned(folder: Path, tmp_path: Path) -> None:
    assert not prune_checkpoints(tmp_path / "nothing", "none")
    assert not (tmp_path / "nothing").exists()
    with make_lock(folder / ".lock"):
        assert not prune_checkpoints(folder, "none")
    result = folder / "result.json"
    result.rename(folder / "aside.json")
    assert not prune_checkpoints(folder, "none")
    (folder / "aside.json").rename(result)
    index = read_index(folder / "checkpoints")
    write_json(folder / "checkpoints/index.json", {name: index[name] for name in index if name != "best.ckpt"})
    assert not prune_checkpoints(folder, "best")  # damaged, and not taken away
    assert names(folder) == {*NAMES, "index.json"}


def test_a_run_killed_before_its_status_is_pruned(folder: Path) -> None:
    (folder / "status.json").unlink()
    assert prune_checkpoints(folder, "none")
    status = RunFiles(folder).status()
    assert (status["state"], status["keep"]) == ("finished", "none")


@pytest.mark.parametrize("keep", ["best", "none"])
def test_a_kill_at_any_point_leaves_nothing_that_looks_damaged(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Any
) -> None:
    """Every change of a file is counted, and the process killed before the first, the second and so on."""
    kills = 0
    for last in itertools.count():
        copy = Path(shutil.copytree(folder, tmp_path / f"copy{last}"))
        done: list[str] = []

        def step(function: Any, done: list[str] = done, last: int = last) -> Any:
            def counted(*arguments: Any, **more: Any) -> Any:
                if len(done) == last:
                    raise KeyboardInterrupt
                done.append(str(arguments[0]))
                return function(*arguments, **more)

            return counted

        with monkeypatch.context() as patch:
            patch.setattr(prune, "write_json", step(write_json))
            patch.setattr(prune, "remove_empty", step(prune.remove_empty))
            patch.setattr(Path, "unlink", step(Path.unlink))
            try:
                complete = prune_checkpoints(copy, keep)
            except KeyboardInterrupt:
                complete, kills = False, kills + 1
        left, index = names(copy), read_index(copy / "checkpoints")
        assert set(index) <= left
        if left != {*NAMES, "index.json"}:
            assert RunFiles(copy).status()["keep"] == keep
            with pytest.raises(UserError, match="not kept"):
                resumed_settings(copy, [f"resume={copy}", "trainer.max_epochs=4"])
        assert prune_checkpoints(copy, keep)
        assert names(copy) == ({"best.ckpt", "index.json"} if keep == "best" else set())
        if complete:
            break
    assert kills >= 4
