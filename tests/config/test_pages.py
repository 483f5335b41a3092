"""Hydra with pages that are kept composes what Hydra composes, and sees every change of a page."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hydra
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf

from convolt.config.compose import compose, register_resolvers
from convolt.config.pages import KeepingLoader, kept_pages
from convolt.system.installation import CONF


def load(loader: ConfigLoader, *overrides: str, mode: RunMode = RunMode.RUN) -> str:
    return OmegaConf.to_yaml(loader.load_configuration("train", [*overrides], mode))


@pytest.fixture
def loader() -> Iterator[ConfigLoader]:
    register_resolvers()
    with kept_pages(), hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.mark.parametrize(
    "overrides",
    [
        "",
        "model=resnet18 optim=adam optim.lr=0.1 seed=3",
        "model=resnet18 optim=adam optim.lr=0.3 ++optim.eps=1",
        "augmentation=[flip,color] +callbacks.mine.a=1 ~augmentation.transforms.flip",
        "hydra/launcher=ray hydra.launcher.num_cpus=2 debug=smoke",
        "study=optimizers optim.lr=1,2",
    ],
)
def test_configs_are_those_of_hydra(loader: ConfigLoader, overrides: str) -> None:
    mode = RunMode.MULTIRUN if "study" in overrides else RunMode.RUN
    assert type(loader) is KeepingLoader
    hydras = load(ConfigLoaderImpl(loader.get_search_path()), *overrides.split(), mode=mode)
    assert [load(loader, *overrides.split(), mode=mode) for _ in range(2)] == [hydras, hydras]


def test_what_is_done_with_a_config_is_not_seen_in_the_next(loader: ConfigLoader) -> None:
    before = load(loader)
    for each in ("optim=adam", "model=vgg11"):  # merge pages over those that all configs share
        load(loader, each)
    config = loader.load_configuration("train", [], RunMode.RUN)
    config.optim.lr = 17
    config.hydra.job.name = "other"
    assert load(loader) == before


def test_pages_that_are_edited_hidden_removed_or_stored_count_at_once(loader: ConfigLoader, tmp_path: Path) -> None:
    first, second = tmp_path / "first/optim", tmp_path / "second/optim"
    first.mkdir(parents=True)
    second.mkdir(parents=True)
    (second / "own.yaml").write_text("name: second\n")
    own = [f"hydra.searchpath=[file://{first.parent},file://{second.parent}]", "optim=own"]
    assert "name: second" in load(loader, *own)
    (second / "own.yaml").write_text("name: edited\n")
    assert "name: edited" in load(loader, *own)
    (first / "own.yaml").write_text("defaults:\n  - /scheduler@more: ${scheduler}\nname: first\n")
    text = load(loader, *own, "scheduler=step")
    assert "name: first" in text
    assert OmegaConf.create(text).optim.more == OmegaConf.create(text).scheduler
    assert OmegaConf.create(load(loader, *own, "scheduler=constant")).optim.more.get("step_size") is None
    (first / "own.yaml").unlink()
    (second / "own.yaml").unlink()
    for _ in range(2):
        with pytest.raises(MissingConfigException):
            load(loader, *own)
    for name in ("a", "b"):
        ConfigStore.instance().store(group="optim", name="own", node={"name": name})
        assert f"name: {name}" in load(loader, *own)
    del ConfigStore.instance().repo["optim"]


def test_a_page_that_is_replaced_by_one_of_the_same_time_and_size_counts(loader: ConfigLoader, tmp_path: Path) -> None:
    page, other = tmp_path / "optim/own.yaml", tmp_path / "other"
    page.parent.mkdir()
    for path, name in ((page, "one"), (other, "two")):
        path.write_text(f"name: {name}\n")
        os.utime(path, (1, 1))
    own = [f"hydra.searchpath=[file://{tmp_path}]", "optim=own"]
    assert "name: one" in load(loader, *own)
    other.replace(page)
    assert "name: two" in load(loader, *own)


def test_folders_that_the_main_page_names_by_the_environment_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "optim").mkdir(parents=True)
        (tmp_path / name / "optim/own.yaml").write_text(f"name: {name}\n")
    main = "defaults: [optim: own, _self_]\nhydra: {searchpath: ['file://${oc.env:CONVOLT_PAGES}']}\n"
    (tmp_path / "train.yaml").write_text(main)
    with kept_pages(), hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        for name in ("one", "two", "one"):
            monkeypatch.setenv("CONVOLT_PAGES", str(tmp_path / name))
            assert f"name: {name}" in load(GlobalHydra.instance().config_loader())


def test_threads_compose_one_after_the_other() -> None:
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda seed: compose([f"seed={seed}"]).seed, range(6))) == [*range(6)]
