"""init_from=RUN_DIR: a run that starts from the tested weights of another one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from convolt.config.compose import compose
from convolt.config.instantiate import build
from convolt.config.settings import Settings
from convolt.errors import UserError
from convolt.inference.trained import TrainedRun
from convolt.runs.checkpoints import SafeCheckpointIO
from convolt.runs.config_hash import config_hash
from convolt.system.files import write_json
from convolt.tasks.classification import ClassificationTask
from convolt.training.init_from import start
from convolt.training.run import run

SMALL = ("trainer.max_epochs=1", "data.train_size=200")


@pytest.fixture(scope="module")
def finished(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of one epoch, to be read only."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(compose([f"data.root={data_root}", "trainer.threads=1", "pictures.enabled=false", *SMALL]), folder)
    return folder


@pytest.fixture
def first_weights(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The weights with which each run begins its first step in this process."""
    found: list[dict[str, torch.Tensor]] = []
    begin = ClassificationTask.on_train_start

    def look(self: Any) -> None:
        found.append({name: value.clone() for name, value in self.network.state_dict().items()})
        begin(self)

    monkeypatch.setattr(ClassificationTask, "on_train_start", look)
    return found


def test_all_weights_are_taken_and_the_source_is_not_needed_afterwards(
    train: Any, settings: Any, finished: Path, tmp_path: Path, first_weights: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(finished, source)
    expected = TrainedRun(source).task().network.state_dict()
    result = train(*SMALL, f"init_from={source}")
    assert first_weights[0].keys() == expected.keys()
    assert all(torch.equal(first_weights[0][name], value) for name, value in expected.items())
    assert f"starts from the weights of {source}\n" in capsys.readouterr().out
    index = json.loads((source / "checkpoints/index.json").read_text())
    weights = {"run": str(source), "checkpoint": "best.ckpt", "sha256": index["best.ckpt"]["sha256"]}
    assert result["init_from"] == weights | {"left_new": []}
    cfg = OmegaConf.load(tmp_path / "run/.hydra/config.yaml")
    assert cfg.init_from == weights
    assert config_hash(cfg) == result["config_hash"] == config_hash(settings(*SMALL, f"init_from={source}"))

    source.rename(tmp_path / "elsewhere")
    moved = settings(*SMALL, f"init_from={tmp_path / 'elsewhere'}")
    assert config_hash(moved) == result["config_hash"]  # by the weights, not by their path
    assert TrainedRun(tmp_path / "run").task().num_classes == 10
    (tmp_path / "run/result.json").unlink()
    again = run(cfg, tmp_path / "run")  # goes on from its own checkpoint, as resume= does
    assert again["metrics"] == result["metrics"]
    assert again["init_from"] == result["init_from"]
    with pytest.raises(UserError, match="is damaged, missing or no longer what it was: restore it, or type"):
        run(cfg, tmp_path / "anew")
    assert not (tmp_path / "anew").exists()
    assert run(moved, tmp_path / "anew")["metrics"] == result["metrics"]


def test_a_head_for_other_classes_stays_new_and_is_named(
    train: Any, finished: Path, first_weights: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    three = [*SMALL, "debug=smoke", "data.classes=['0','1','2']"]
    train(*three, directory="fresh")
    result = train(*three, f"init_from={finished}")
    expected = TrainedRun(finished).task().network.state_dict()
    fresh, started = first_weights
    new = {name for name, value in expected.items() if value.shape != fresh[name].shape}
    assert set(result["init_from"]["left_new"]) == new == {"head.5.weight", "head.5.bias"}
    for name, value in started.items():
        assert torch.equal(value, (fresh if name in new else expected)[name]), name
    assert "new, for 3 classes and not 10: " in capsys.readouterr().out


def test_a_head_of_other_classes_of_the_same_number_is_told(
    train: Any, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "source")
    file = tmp_path / "source/preprocessing.json"
    record = json.loads(file.read_text())
    write_json(file, record | {"classes": [f"old {name}" for name in record["classes"]]})
    train(*SMALL, "debug=smoke", f"init_from={tmp_path / 'source'}")
    message = (
        "; the head too, though its classes are old 0, old 1, old 2, old 3, old 4, and 5 more there and 0, 1, 2, 3, 4, "
        "and 5 more here"
    )
    assert message in capsys.readouterr().out


def test_all_that_depends_on_the_classes_is_the_head(settings: Any, tmp_path: Path) -> None:
    """Scores and learned upsamplings of a segmentation network, which depend on the classes once and twice."""
    source = tmp_path / "source"
    (source / "checkpoints").mkdir(parents=True)
    options = ["data=shapes", "model=fcn8s", "model.width=0.05", "model.hidden=8"]
    cfg = settings(*options)
    taken = build(cfg.model, "model").state_dict()
    state = {f"network.{name}": value for name, value in taken.items()}
    SafeCheckpointIO().save_checkpoint({"state_dict": state, "epoch": 0}, source / "checkpoints/best.ckpt")
    write_json(source / "result.json", {"checkpoint": "best"})
    write_json(source / "preprocessing.json", {"classes": list(map(str, range(cfg.data.num_classes)))})
    other = settings(*options, "data.num_classes=3", f"init_from={source}")
    network = build(other.model, "model")
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    told = start(Settings.of(other), network, ["a", "b", "c"], [].append)
    assert torch.equal(torch.get_rng_state(), random)
    new = [name for name, value in fresh.items() if value.shape != taken[name].shape]
    assert told["init_from"]["left_new"] == new
    assert {name.split(".")[0] for name in new} == {"scores", "upsamplings"}
    for name, value in network.state_dict().items():
        assert torch.equal(value, (fresh if name in new else taken)[name]), name


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["model=resnet20"], r"its network is another one: \S+ is not there and \S+ here"),
        (["batchnorm=after"], r"its network is another one: \S+ is not there and \S+ here"),
        (["data=arrays", "data.path={tiny}", "data.image_size=32"], r": stages\.\S+ is 6x1x5x5 there and 6x3x5x5 here"),
    ],
)
def test_another_network_is_refused_in_a_line_that_names_the_first_difference(
    options: list[str], why: str, settings: Any, finished: Path, tiny: Path, tmp_path: Path
) -> None:
    cfg = settings(*(option.format(tiny=tiny) for option in options), f"init_from={finished}")
    with pytest.raises(UserError, match=why) as error:
        run(cfg, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_what_is_no_finished_run_is_named_when_the_settings_are_composed(
    settings: Any, finished: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(finished, broken)
    for asked, why in (
        (tmp_path / "brokn", "there is no such directory; did you mean '.*broken'"),
        (tmp_path, "there is no finished run"),
        (broken, "best.ckpt, is missing: restore it"),
    ):
        (broken / "checkpoints/best.ckpt").unlink(missing_ok=True)
        with pytest.raises(UserError, match=why):
            settings(f"init_from={asked}")
    with pytest.raises(UserError, match="both say which weights to start from"):
        settings(f"init_from={finished}", "model=torchvision", "model.name=resnet18", "model.pretrained=true")


def test_damaged_weights_are_refused(train: Any, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "broken")
    file = tmp_path / "broken/checkpoints/best.ckpt"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged, missing or no longer what it was"):
        train(*SMALL, f"init_from={tmp_path / 'broken'}")
    assert not (tmp_path / "run").exists()
