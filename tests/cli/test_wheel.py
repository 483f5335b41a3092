"""The wheel, built and used as whoever installs it does: in an empty folder, without the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

import convolt
from convolt.config.compose import compose
from convolt.runs.config_hash import config_hash

ROOT = Path(__file__).resolve().parents[2]
BUILD = ("src", "conf", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
STUDY = ["data=digits", "model=lenet", "trainer.max_epochs=2"]


def execute(*line: object, cwd: Path, **environment: str) -> str:
    """Run a program, without what the tests' own environment says of modules; return its output."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run(map(str, line), cwd=cwd, env=inherited, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, folder: Path) -> Path:
    """Build a wheel of a folder or of an sdist, with this environment's setuptools; return its file."""
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    execute(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, source, cwd=folder.parent)
    return next(folder.glob("*.whl"))


def digests(wheel: Path) -> dict[str, str]:
    with ZipFile(wheel) as archive:
        return {name: sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is built, copied, since building leaves files beside it."""
    folder = tmp_path_factory.mktemp("checkout")
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in BUILD:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=skipped)
        else:
            shutil.copyfile(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    return build(checkout, checkout.with_name("dist"))


@pytest.fixture
def typed(wheel: Path, tmp_path: Path) -> Callable[..., str]:
    """Type `convolt ...` in an empty folder, where the wheel is installed."""
    installed = tmp_path / "installed"
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target", installed]
    execute(sys.executable, "-m", "pip", "install", *options, wheel, cwd=tmp_path)
    folder = tmp_path / "empty"
    folder.mkdir()
    command = installed / "bin/convolt"
    return lambda *words: execute(command, *words, cwd=folder, PYTHONPATH=str(installed))


def test_the_wheel_holds_all_configs_and_templates_as_they_are(wheel: Path) -> None:
    found = digests(wheel)
    pages = {page.relative_to(ROOT).as_posix(): page for page in (ROOT / "conf").rglob("*.yaml")}
    assert {name.removeprefix("convolt/") for name in found if name.startswith("convolt/conf/")} == {*pages}
    for name, page in pages.items():
        assert found[f"convolt/{name}"] == sha256(page.read_bytes()).hexdigest(), name
    assert {"convolt/cli/project/gitignore", "convolt/cli/project/conf/study/mine.yaml"} <= {*found}
    assert "convolt/py.typed" in found  # by which type checkers read our annotations
    assert not [name for name in found if "__pycache__" in name or name.endswith("setup.py")]


def test_the_container_is_built_of_the_same() -> None:
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {word for line in copied for word in line.split()} == {*BUILD}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == {*BUILD}


def test_a_wheel_of_the_sdist_is_that_of_the_checkout(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    execute(sys.executable, "-c", code, tmp_path, cwd=checkout)
    sdist = next(tmp_path.glob("*.tar.gz"))
    assert digests(build(sdist, tmp_path / "dist")) == digests(wheel)


def test_what_is_installed_trains_predicts_and_runs_a_study(typed: Callable[..., str], tmp_path: Path) -> None:
    assert typed("--version") == f"convolt {convolt.__version__}\n"
    typed("init")
    folder = tmp_path / "empty"
    said = typed("train", "model=mine", "trainer.max_epochs=2", "trainer.threads=1", "pictures.enabled=false")
    run = folder / said.splitlines()[-1]
    assert run.parent == folder / "outputs/runs/mine_digits_adam"
    result = json.loads((run / "result.json").read_text())
    assert (result["git_commit"], result["versions"]["convolt"]) == (None, convolt.__version__)
    assert result["metrics"]["test/accuracy"] > 0.3
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "dark.png")
    answer = json.loads(typed("predict", run, "dark.png", "--json"))
    assert len(answer["predictions"]) == 1

    typed("study", "optimizers", *STUDY, "seed=0", "hydra.sweeper.tune=null", "trainer.threads=1")
    study = next(folder.glob("outputs/studies/*"))
    assert "SGD, momentum and Adam" in (study / "report/report.md").read_text()
    rows = {path.parent.parent.name: json.loads(path.read_text()) for path in study.glob("*/seed*/result.json")}
    assert {*rows} == {"sgd", "momentum", "adam"}
    for row, each in rows.items():
        assert each["config_hash"] == config_hash(compose([*STUDY, f"optim={row}", "seed=0", "trainer.threads=1"]))
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        *("README.md", "conf", "networks.py", "pytest.ini", "tests", "dark.png", "data", "outputs")
    }
