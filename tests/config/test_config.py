"""The config: every option composes and builds, every number has a type and a range, every mistake is named."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict
from pydantic import ValidationError

from convolt.config.check import check
from convolt.config.compose import compose, explain_hydra_error, slug
from convolt.config.instantiate import build
from convolt.config.settings import KEYS_ADDED_LATER, Settings
from convolt.errors import UserError
from convolt.runs.config_hash import config_hash
from convolt.system.installation import CONF

GROUPS = ("model", "data", "optim", "scheduler", "augmentation", "batchnorm", "trainer", "debug")
NEEDS = {
    "data=folder": ["data.path=images"],
    "data=arrays": ["data.path=a.npz", "data.channels=3", "data.num_classes=3", "data.image_size=32"],
}
"""What an option asks the user for."""


def options() -> list[str]:
    files = (file for group in GROUPS for file in sorted((CONF / group).rglob("*.yaml")))
    parts = (file.relative_to(CONF).with_suffix("").as_posix().split("/", 1) for file in files)
    return [f"{group}={option}" for group, option in parts]


@cache
def composed(option: str) -> DictConfig:
    return compose([option, *NEEDS.get(option, [])])


def numbers(node: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from numbers(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield key, node


def numeric_keys() -> list[tuple[str, str]]:
    """Return every number of the common page and of every option: (the option, the key)."""
    page = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml"))
    found = [("model=lenet", key) for key, _ in numbers(page) if not key.startswith("hydra")]
    for option in options():
        group, name = option.split("=")
        file = CONF / group / f"{name}.yaml"
        package = "" if "@package _global_" in file.read_text() else f"{group}."
        found += [(option, f"{package}{key}") for key, _ in numbers(OmegaConf.to_container(OmegaConf.load(file)))]
    return found


@pytest.mark.parametrize("option", options())
def test_every_option_composes_and_says_its_choice(option: str) -> None:
    group, name = option.split("=")
    cfg = composed(option)
    assert cfg.choices[group] == name
    assert option in cfg.overrides


@pytest.mark.parametrize(
    "option", [o for o in options() if o.split("=")[0] in ("optim", "scheduler", "augmentation", "data")]
)
def test_every_option_builds(option: str) -> None:
    cfg = composed(option)
    group = option.split("=", maxsplit=1)[0]
    if group == "optim":
        weight = torch.nn.Parameter(torch.ones(3))
        made = build(cfg.optim, "optim")([weight])
        weight.sum().backward()
        made.step()
        assert (weight < 1).all()
    elif group == "scheduler":
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
        schedules = build(cfg.scheduler, "scheduler")(optimizer, 10, 5)
        assert len(schedules) == (0 if option == "scheduler=constant" else 1)
    elif group == "augmentation":
        augmentation = build(cfg.augmentation, "augmentation")
        assert len(augmentation.transforms) == len(cfg.augmentation.transforms)
    else:
        assert build(cfg.data, "data", known_only=True).batch_size == cfg.data.batch_size


@pytest.mark.parametrize(("option", "key"), numeric_keys())
def test_a_number_is_checked_for_type_and_sign(option: str, key: str) -> None:
    usual = composed(option)
    for value in ("abc", -1):
        cfg = usual.copy()
        OmegaConf.update(cfg, key, value)
        with pytest.raises(UserError, match=key.rsplit(".", maxsplit=1)[-1]):
            check(cfg, usual)


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("trainer.max_epochs=two", "integer"),
        ("trainer.max_epochs=1.5", "integer"),
        ("trainer.max_epochs=0", "greater than or equal to 1"),
        ("trainer.max_epochs=true", "integer"),
        ("optim.lr=0", "greater than 0"),
        ("optim.lr=inf", "finite"),
        ("optim.lr=null", "number"),
        ("optim.betas=[0.9]", "at least 2"),
        ("optim.betas=[0.9,1.5]", "less than 1"),
        ("seed=1.5", "integer"),
        ("data.val_fraction=1", "less than 1"),
        ("data.labels=middle", "fine"),
        ("data.mean=[2]", "less than or equal to 1"),
        ("data.std=[0]", "greater than 0"),
        ("data.classes=cat", "list"),
        ("batchnorm.placement=middle", "before"),
        ("batchnorm.momentum=2", "less than or equal to 1"),
        ("task.label_smoothing=1", "less than 1"),
        ("trainer.precision=bf17", "bf16-mixed"),
        ("trainer.accelerator=tpu", "cpu"),
        ("trainer.test=first", "best"),
        ("trainer.deterministic=maybe", "boolean"),
        ("trainer.checkpoint.monitor=val/acc", "val/accuracy"),
        ("trainer.early_stopping.monitor=loss", "val/loss"),
        ("model.dropout=1", "less than 1"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_would_be_right(override: str, right: str) -> None:
    with pytest.raises(UserError, match=right) as error:
        compose([override])
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(override.split("=", maxsplit=1)[0])


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("model=resnet81", "resnet18"),
        ("model=agrawal2020/resnet5", "agrawal2020/resnet50"),
        ("data=cifar", "cifar10"),
        ("optim=adm", "adam"),
        ("augmentation=flop", "flip"),
        ("augmentation=[flip,crp]", "crop"),
        ("modle=lenet", "model"),
        ("optim.larning_rate=1", "optim"),
        ("optim.lrr=1", "optim.lr"),
        ("trainer.max_epoch=1", "trainer.max_epochs"),
        ("data.batchsize=1", "data.batch_size"),
        ("+data.batchsize=1", "batch_size"),
        ("trainer.early_stopping.patiens=1", "patience"),
        ("lr=0.1", "optim.lr"),
        ("epochs=3", "trainer.max_epochs"),
        ("batch_size=8", "data.batch_size"),
        ("dropout=0.5", "model.dropout"),
        ("momentum=0.9", "optim.momentum"),
        ("weight_decay=0", "optim.weight_decay"),
        ("workers=4", "trainer.threads"),
        ("+gpus=2", "trainer.devices"),
    ],
)
def test_a_misspelt_option_or_key_names_the_near_matches(override: str, near: str) -> None:
    with pytest.raises(UserError) as error:
        compose([override])
    assert "did you mean" in str(error.value)
    assert near in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.val_fraction=0", "scheduler=plateau"], "scheduler=plateau watches val/loss"),
        (["data.val_fraction=0", "trainer.early_stopping.patience=3"], "trainer.early_stopping watches val/loss"),
        (["augmentation=[mixup,cutmix]"], "cannot both mix"),
        (["model=null"], "needs one of its options"),
        (["optim=[adam,sgd]"], "optim"),
        (["nonsense"], "no override"),
    ],
)
def test_what_does_not_fit_together_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose(overrides)


def test_values_beat_options_and_options_beat_the_page() -> None:
    assert compose(["optim=momentum"]).optim.lr == 0.01
    assert compose(["optim=momentum", "optim.lr=0.3"]).optim.lr == 0.3
    assert compose(["data=mnist"]).data.padding == 2
    assert compose(["data=cifar10"]).model.in_channels == 3


def test_pages_of_ones_own_are_found_checked_and_read_again_when_edited(tmp_path: Path) -> None:
    (tmp_path / "optim").mkdir()
    page = tmp_path / "optim/slow.yaml"
    page.write_text((CONF / "optim/sgd.yaml").read_text() + "dampening: 0.25\n")
    own = f"hydra.searchpath=[file://{tmp_path}]"
    cfg = compose([own, "optim=slow", "optim.dampening=0.5"])
    assert cfg.choices.optim == "slow"
    assert cfg.optim.dampening == 0.5
    with pytest.raises(UserError, match=r"optim\.dampening=x"):
        compose([own, "optim=slow", "optim.dampening=x"])
    with pytest.raises(UserError, match="did you mean 'slow'"):
        compose([own, "optim=slwo"])
    page.write_text(page.read_text().replace("0.25", "fast"))
    assert compose([own, "optim=slow", "optim.dampening=x"]).optim.dampening == "x"


def test_augmentations_are_composed_by_a_list_in_its_order() -> None:
    cfg = compose(["augmentation=[flip,color]"])
    assert list(cfg.augmentation.transforms) == ["flip", "color"]
    assert cfg.choices.augmentation == "flip+color"
    assert list(compose(["augmentation=crop_flip"]).augmentation.transforms) == ["crop", "flip"]
    assert list(compose().augmentation.transforms) == []


def test_an_experiment_is_recorded_as_it_was_composed(tmp_path: Path) -> None:
    pages = {
        "experiment/fast": "# @package _global_\ndefaults:\n  - override /optim: sgd\n"
        "  - override /augmentation: [flip, color]\nseed: 7\noptim:\n  lr: 0.5\n",
        "callbacks/timer": "timer:\n  _target_: pytorch_lightning.callbacks.Timer\n",
    }
    for name, page in pages.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(page)
    own = f"hydra.searchpath=[file://{tmp_path}]"
    cfg = compose([own, "+experiment=fast"])
    assert list(cfg.augmentation.transforms) == ["flip", "color"]
    assert (cfg.seed, cfg.optim.lr, cfg.choices.optim) == (7, 0.5, "sgd")
    assert (cfg.choices.augmentation, cfg.choices.experiment) == ("flip+color", "fast")
    cfg = compose([own, "+experiment=fast", "optim=adam", "augmentation=crop", "seed=1", "+callbacks=[timer]"])
    assert (cfg.seed, cfg.optim.lr, cfg.choices.optim, cfg.choices.augmentation) == (1, 0.5, "adam", "crop")
    assert (cfg.choices.callbacks, "timer" in cfg.callbacks) == ("timer", True)
    with pytest.raises(UserError, match=r"add one by \+experiment=fast"):
        compose([own, "experiment=fast"])
    with pytest.raises(UserError, match=r"optim\.lr=x"):
        compose([own, "+experiment=fast", "optim.lr=x"])


def test_a_group_with_several_options_is_what_was_composed() -> None:
    assert compose(["augmentation=[crop_flip, 'color']"]).choices.augmentation == "crop_flip+color"
    assert compose(["augmentation=[]"]).choices == compose().choices
    assert set(compose(["model=agrawal2020/resnet50", "data=voc2012"]).choices) == set(compose().choices)
    with pytest.raises(UserError, match=r"scheduler=\[step,cosine\]: a group takes one option"):
        compose(["scheduler=[step,cosine]"])
    with pytest.raises(UserError, match="there is no key optim2"):
        compose(["+optim@optim2=sgd"])


def test_values_from_the_environment_are_read_as_if_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "LR": "2e-3",
        "SEED": "3",
        "FORCE": "true",
        "SIZE": "null",
        "MEAN": "[0.5]",
        "FOLDER": "2024",
        "PHOTOS": "~/x",
    }
    for name, value in (given | {"HOME": "/home/me"}).items():
        monkeypatch.setenv(name, value)
    keys = ("optim.lr", "seed", "force", "data.train_size", "data.mean", "data.root")
    typed = [f"{key}=${{oc.env:{name}}}" for key, name in zip(keys, given, strict=False)]
    cfg = compose([*typed, "data=folder", "data.path=${oc.env:PHOTOS}", "trainer.threads=${oc.env:SEED}"])
    assert [OmegaConf.select(cfg, key) for key in keys] == [0.002, 3, True, None, [0.5], "2024"]
    assert (cfg.data.path, cfg.trainer.threads) == ("/home/me/x", 3)
    assert config_hash(compose(["optim.lr=${oc.env:LR}"])) == config_hash(compose(["optim.lr=0.002"]))
    with pytest.raises(UserError, match=r"optim\.lr: the environment has no variable CONVOLT_UNSET"):
        compose(["optim.lr=${oc.env:CONVOLT_UNSET}"])


def test_class_names_and_paths_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    assert compose(["data.classes=[3, true,1.50,null,größe]"]).data.classes == ["3", "true", "1.50", "null", "größe"]
    assert compose(["data.classes=null"]).data.classes is None
    assert compose(["data=folder", "data.path=2024"]).data.path == "2024"
    (tmp_path / "data").mkdir()
    page = tmp_path / "data/some.yaml"
    own = f"hydra.searchpath=[file://{tmp_path}]"
    page.write_text((CONF / "data/digits.yaml").read_text() + "classes: [3, 7]\n")
    assert compose([own, "data=some"]).data.classes == ["3", "7"]
    page.write_text(page.read_text().replace("[3, 7]", "[yes, no]"))
    with pytest.raises(UserError, match=r"data\.classes: YAML reads yes"):
        compose([own, "data=some"])


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (b"seed: 3\n", "experiment=mine: its page must begin with the line `# @package _global_`"),
        (b"", "experiment=mine: its page must begin with the line `# @package _global_`"),
        (b"seed: 3\n data: 1\n", "PAGE, line 2: mapping values are not allowed here"),
        (b"seed: 3\nseed: 4\n", "PAGE, line 2: found duplicate key seed"),
        (b"a: [1,\n", "PAGE, line 2: expected the node content, but found '<stream end>'"),
        (b"# gr\xfcn\n", "PAGE is not in UTF-8: save it in this encoding"),
        (b"# @package _global_\ndefaults:\n  - /optim: sgd\n", "optim: an option is chosen already: choose another by"),
        (b"# @package _global_\ndefaults:\n  - override /optim: sdg\n", "optim=sdg: there is no such optim"),
    ],
)
def test_what_is_wrong_with_a_page_of_ones_own_is_told_with_its_place(
    answer: Any, tmp_path: Path, page: bytes, message: str
) -> None:
    file = tmp_path / "my/experiment/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_bytes(page)
    status, line = answer("--config-dir my +experiment=mine")
    assert status == 2
    assert line.startswith(f"error: {message.replace('PAGE', 'my/experiment/mine.yaml')}")
    assert len(line.splitlines()) == 1


def test_a_page_that_another_one_hides_is_not_passed_over(tmp_path: Path) -> None:
    page = tmp_path / "optim/adam.yaml"
    page.parent.mkdir()
    page.write_bytes((CONF / "optim/adam.yaml").read_bytes())
    own = f"hydra.searchpath=[file://{tmp_path}]"
    assert compose([own, "optim=adam"]).optim.lr == 0.001  # a copy
    page.write_text(page.read_text().replace("lr: 0.001", "lr: 0.5").replace("lr: 1.0e-3", "lr: 0.5"))
    assert compose([own, "optim=sgd"]).optim.lr == 0.1
    with pytest.raises(UserError, match=rf"^{page} would not be read, since {CONF}/optim/adam.yaml comes first"):
        compose([own, "optim=adam"])


def test_one_choice_has_one_name_however_it_is_typed() -> None:
    plain, odd = compose(["augmentation=flip"]), compose(["augmentation=[none,flip.yaml,flip]", "model=lenet.yaml"])
    assert odd.choices == plain.choices
    assert config_hash(odd) == config_hash(plain)
    assert compose(["augmentation=[none]"]).choices.augmentation == "none"


def test_composing_leaves_another_hydra_program_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2", job_name="mine"):
        assert compose(["optim=sgd"]).choices.optim == "sgd"
        with pytest.raises(UserError):
            compose(["optim=sdg"])
        assert hydra.compose("mine").a == 1
        assert str(hydra.version.getbase()) == "1.2"
    assert not GlobalHydra.instance().is_initialized()


def test_the_hash_is_of_what_can_change_a_number() -> None:
    usual = config_hash(compose())
    assert config_hash(compose(["data.root=/elsewhere"])) == usual
    assert config_hash(compose(["force=true"])) == usual
    assert config_hash(compose(["model=lenet", "seed=0"])) == usual
    assert (
        len({usual, *(config_hash(compose([o])) for o in ("seed=1", "optim=sgd", "optim.lr=0.1", "data.padding=3"))})
        == 5
    )


def test_a_key_or_group_that_came_later_leaves_the_hash_at_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = compose()
    before = config_hash(usual)
    monkeypatch.setitem(KEYS_ADDED_LATER, "optim.lookahead", False)
    monkeypatch.setitem(KEYS_ADDED_LATER, "averaging", {"decay": 0.9})
    monkeypatch.setitem(KEYS_ADDED_LATER, "choices.averaging", "none")

    def later(lookahead: bool = False, decay: float = 0.9, choice: str = "none", logger: str = "csv") -> str:
        cfg = usual.copy()
        with open_dict(cfg):
            cfg.optim.lookahead, cfg.averaging, cfg.choices.averaging = lookahead, {"decay": decay}, choice
            cfg.logger, cfg.choices.logger = {"kind": logger}, logger
        return config_hash(cfg)

    assert later() == later(logger="wandb") == before
    trackers = (
        "logger=csv",
        "logger=[tensorboard,wandb]",
        "logger=none",
        "logger=mlflow logger.mlflow.experiment=mine",
    )
    assert {config_hash(compose(each.split())) for each in trackers} == {before}
    assert len({before, later(lookahead=True), later(decay=0.99), later(choice="ema")}) == 4


def test_the_hash_is_that_of_configs_without_the_later_keys() -> None:
    cfg = compose(["data.stage=true", "trainer.devices=2"])
    older = compose()
    with open_dict(older):
        del older.init_from, older.data.stage
        del older.trainer.sync_batchnorm, older.trainer.batch_per, older.trainer.learning_rate_rule
    assert config_hash(cfg) == config_hash(older)
    with open_dict(cfg):
        cfg.init_from = {"run": "/a", "checkpoint": "best.ckpt", "sha256": "1"}
    hashes = {config_hash(older), config_hash(cfg)}
    cfg.init_from.run = "/moved"
    hashes.add(config_hash(cfg))
    assert len(hashes) == 2
    cfg.init_from.sha256 = "2"
    assert config_hash(cfg) not in hashes


def test_settings_of_an_older_run_are_completed_and_its_hash_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    new = compose(["trainer.max_epochs=3"])
    older = new.copy()
    with open_dict(older):
        del older.init_from, older.pictures, older.data.stage, older.task.test_time_flip, older.debug.profile
        for name in ("tf32", "compile", "fused", "cudnn_benchmark", "sync_batchnorm", "batch_per"):
            del older.trainer[name]
    before = config_hash(older)
    assert check(older).model_dump() == Settings.of(new).model_dump()
    assert "pictures" not in older
    assert config_hash(older) == before
    monkeypatch.setitem(KEYS_ADDED_LATER, "trainer.tf32", False)  # where the default of then was another one
    assert not Settings.of(older).trainer.tf32
    del older.trainer.max_epochs
    with pytest.raises(UserError, match=r"the key trainer\.max_epochs is missing"):  # damaged, and not old
        Settings.of(older)


def test_settings_with_other_values_follow_interpolations() -> None:
    settings = Settings.of(compose(["debug=smoke", "augmentation=[flip,crop]"]))
    changed = settings.replaced({"data.num_classes": 7, "data.batch_size": 300})
    assert (changed.model.num_classes, changed.cfg.model.num_classes, settings.data.num_classes) == (7, 7, 10)
    assert (settings.data.evaluation_batch_size, changed.data.evaluation_batch_size) == (256, 300)
    assert (settings.epochs, settings.replaced({"debug.max_epochs": None}).epochs) == (1, 15)
    assert (settings.choice("augmentation"), settings.choice("nothing")) == ("flip+crop", "")
    with pytest.raises(ValidationError):
        settings.seed = 1  # type: ignore[misc]


def test_slugs_are_safe_short_and_distinct() -> None:
    assert slug("model=agrawal2020/resnet50,seed=1") == "model=agrawal2020-resnet50,seed=1"
    assert "/" not in slug("data.path=/a/b c")
    long = [slug("optim.lr=0." + "1" * 300 + end) for end in "ab"]
    assert max(map(len, long)) <= 120
    assert long[0] != long[1]


def test_hydras_other_errors_become_one_line() -> None:
    error = explain_hydra_error(ValueError("first\n\nsecond\nthird"), Path(CONF), [])
    assert str(error) == "first; second"


def test_a_config_without_trackers_is_of_before_there_were_others(monkeypatch: pytest.MonkeyPatch) -> None:
    older = compose()
    assert older.choices.logger == "tensorboard"
    with open_dict(older):
        del older["logger"], older.choices["logger"]
    assert Settings.of(older).logger.tensorboard is not None
    assert Settings.of(older).logger.csv is Settings.of(older).logger.wandb is None
    assert compose(["logger=[wandb,csv]"]).choices.logger == "wandb+csv"


def test_a_tracker_that_is_not_installed_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convolt.config.check.find_spec", lambda name: None)
    for name in ("wandb", "mlflow"):
        with pytest.raises(UserError, match=rf"^logger={name} needs {name}: pip install 'convolt\[loggers\]'$"):
            compose([f"logger=[tensorboard,{name}]"])
    compose(["logger=csv"])
