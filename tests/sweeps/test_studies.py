"""Every study in conf/study: its page, its published numbers, and that each of its rows can be run."""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from torch import nn

from convolt.config.compose import compose
from convolt.config.instantiate import build
from convolt.data.augment import Augmentation
from convolt.runs.config_hash import config_hash
from convolt.sweeps.study import CommandLine, read_study
from convolt.sweeps.study_plan import StudyPlan
from convolt.system.installation import CONF

PATHS = {path.stem: path for path in sorted((CONF / "study").glob("*.yaml"))}
STUDIES: dict[str, dict[str, Any]] = {name: yaml.safe_load(path.read_text()) for name, path in PATHS.items()}
ROWS = [(study, row) for study, page in STUDIES.items() for row in page["runs"]]
PUBLISHED_ROWS = Path(__file__).parent / "published_rows.csv"
HASHES = json.loads((Path(__file__).parent / "study_hashes.json").read_text())

CLASSES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "mnist": list("0123456789"),
}
NETWORKS: dict[str, nn.Module] = {}
RATES = ("accuracy", "precision", "recall", "f1")


def overrides(study: str, row: str) -> tuple[str, ...]:
    page = STUDIES[study]
    return (*page["base"], *page["runs"][row]["overrides"])


@cache
def composed(typed: Sequence[str]) -> DictConfig:
    return compose(typed)


def settings_of(cfg: DictConfig) -> str:
    """All that a run does, as text; not how it was typed, nor by which option it came."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    return json.dumps({key: value for key, value in plain.items() if key not in ("choices", "overrides")})


def network(cfg: DictConfig) -> nn.Module:
    """The network without memory for its weights, and without a download; rows with the same one share it."""
    cfg = cfg.copy()
    if cfg.model.get("pretrained"):
        cfg.model.pretrained = False
    key = json.dumps(OmegaConf.to_container(cfg.model, resolve=True))
    if key not in NETWORKS:
        with torch.device("meta"):
            NETWORKS[key] = build(cfg.model, "model").eval()
            logits = NETWORKS[key](torch.empty(2, cfg.data.channels, cfg.data.image_size, cfg.data.image_size))
        assert logits.shape[:2] == (2, cfg.data.num_classes)
    return NETWORKS[key]


@pytest.mark.parametrize("study", STUDIES)
def test_page(study: str) -> None:
    text, page = PATHS[study].read_text(), STUDIES[study]
    header = re.split(r"^title:", text, flags=re.MULTILINE)[0].splitlines()
    assert header[0] == "# @package hydra.sweeper.study"
    assert header[1].startswith(f"# ./multirun.sh {study} "), "the header gives the command"
    assert any(line.startswith("# Time: ") for line in header)
    assert set(page) - {"tune", "candidates"} == {"title", "question", "base", "baseline", "seeds", "runs"}
    assert ("hydra.sweeper.tune=null" in "".join(header)) == ("tune" in page), "what takes minutes is untuned"
    StudyPlan.of(read_study(page, study), study, CommandLine())
    assert page["title"]
    assert page["question"].endswith("?")
    assert page["baseline"] in page["runs"]
    assert page["seeds"] == [0, 1, 2]
    for row, run in page["runs"].items():
        assert set(run) <= {"overrides", "published", "published_per_class", "note"}, row
        assert all(isinstance(override, str) and "=" in override for override in (*page["base"], *run["overrides"]))
        assert isinstance(row, str)
        assert isinstance(run.get("note", ""), str), row


@pytest.mark.parametrize(("study", "row"), [(s, r) for s, r in ROWS if "published" in STUDIES[s]["runs"][r]])
def test_published_numbers(study: str, row: str) -> None:
    run = STUDIES[study]["runs"][row]
    numbers = dict(run["published"])
    assert re.fullmatch(r"\w+2\d{3}, [\w.-]+", numbers.pop("source"))
    for name, value in numbers.items():
        split, _, metric = name.partition("/")
        assert split in ("train", "val", "test"), name
        assert metric in ("accuracy", "loss", "mean_iou", "dice"), name
        assert value > 0, name
        assert metric == "loss" or value <= 1, "a fraction, not percent"
    if "published_per_class" in run:
        dataset = "cifar10" if "data=cifar10" in overrides(study, row) else "mnist"
        entries = run["published_per_class"]
        assert [entry["class"] for entry in entries] == CLASSES[dataset], "the dataset's names, in its order"
        assert all(0 <= entry[rate] <= 1 for entry in entries for rate in RATES if rate in entry)


def test_every_published_row_stands_in_one_study() -> None:
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for study, row in ROWS:
        published = STUDIES[study]["runs"][row].get("published")
        if published:
            found[published["source"], row].append(published.get("test/accuracy"))
    with PUBLISHED_ROWS.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 75
    for line in rows:
        key = (line["report"], line["table"], line["row"])
        test_accuracy = float(line["test_acc"]) / 100 if line["test_acc"] else None
        expected = [pytest.approx(test_accuracy, abs=1e-9) if test_accuracy else None]
        assert found[f"{key[0]}, {key[1]}", key[2]] == expected, key


@pytest.mark.parametrize(("study", "row"), ROWS)
def test_row_builds(study: str, row: str) -> None:
    cfg = composed(overrides(study, row))
    optimizer = build(cfg.optim, "optim")(network(cfg).parameters())
    assert optimizer.defaults["lr"] == cfg.optim.lr
    build(cfg.scheduler, "scheduler")(optimizer, cfg.trainer.max_epochs, 10)
    augmentation: Augmentation = build(cfg.augmentation, "augmentation")
    augmentation.draw(0, 0, 4, torch.device("cpu"))
    # A run that holds nothing out tests its last epoch, and says so.
    assert (cfg.data.val_fraction == 0) == (cfg.trainer.test == "last")
    for channels in (cfg.data.mean, cfg.data.std):
        assert channels is None or len(channels) == cfg.data.channels


@pytest.mark.parametrize("study", STUDIES)
def test_config_hashes_are_what_they_were(study: str) -> None:
    """A finished study must be found finished by a later version; scripts/study_hashes.py adds new rows."""
    found = {row: config_hash(composed(overrides(study, row))) for row in STUDIES[study]["runs"]}
    assert found == HASHES.get(study, {}), "new rows: python scripts/study_hashes.py; a hash that stands there stays"


@pytest.mark.parametrize("study", STUDIES)
def test_rows_differ(study: str) -> None:
    alike = defaultdict(list)
    for row, run in STUDIES[study]["runs"].items():
        if not run.get("note", "").startswith("the same settings"):
            alike[settings_of(composed(overrides(study, row)))].append(row)
    assert [rows for rows in alike.values() if len(rows) > 1] == []


@pytest.mark.parametrize("study", [name for name in STUDIES if not re.match(r"\w+2\d{3}_", name)])
def test_own_studies_are_for_any_network_and_data(study: str) -> None:
    """What a study does not vary can be replaced on the command line, as README does with a small network."""
    varied = {override.split("=")[0] for run in STUDIES[study]["runs"].values() for override in run["overrides"]}
    data = "data=shapes" if "data=voc2012" in STUDIES[study]["base"] else "data=mnist"
    small = [o for o in ("model=lenet", data, "optim=sgd", "scheduler=step") if o.split("=")[0] not in varied]
    row = list(STUDIES[study]["runs"])[-1]
    network(composed((*STUDIES[study]["base"], *STUDIES[study]["runs"][row]["overrides"], *small)))


@pytest.mark.parametrize(
    ("study", "row"),
    [
        ("agrawal2020_cifar10", "lenet-cifar10"),
        ("menon2020_cifar10", "resnet20v1-cifar10"),
        ("menon2020_cifar10", "resnet20v2-cifar10"),
        ("chhipani2021_resnet_cifar10", "resnet18-augmentation"),
        ("activations", "leaky_relu-0.3"),
        ("augmentations", "all"),
        ("augmentations", "mixup"),
        ("batch_size", "batch-16"),
    ],
)
def test_row_trains(study: str, row: str, train: Any, tiny: Path) -> None:
    images = ["data=arrays", f"data.path={tiny}", "data.image_size=32", "debug=smoke", "debug.batch_size=8"]
    result = train(*overrides(study, row), *images)
    assert result["epochs"] == 1
    assert 0 <= result["metrics"]["test/accuracy"] <= 1


def test_docs_list_every_study() -> None:
    lines = (CONF.parent / "docs" / "studies.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines if line.startswith("| `")]
    listed = {name.strip("`"): (title, int(rows)) for name, title, rows in cells}
    assert listed == {name: (page["title"], len(page["runs"])) for name, page in STUDIES.items()}
