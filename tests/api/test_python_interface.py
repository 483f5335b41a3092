"""`from convolt import train, study, load`: the command line's runs, and what is read of them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import convolt
from convolt import Run, RunError, Study, UserError, load, study, train
from convolt.reports.report import main as report
from convolt.system.files import add_digest, write_json
from convolt.system.signals import STOP_SIGNALS
from written_study import make_run, make_study, write_predictions

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("trainer.threads=1", "trainer.max_epochs=2", "pictures.enabled=false", "data.train_size=320")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_root: Path) -> str:
    """Work in an empty folder; returns the override that names the prepared datasets."""
    monkeypatch.chdir(tmp_path)
    return f"data.root={data_root}"


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in STOP_SIGNALS]


def test_the_package_is_imported_without_its_rooms() -> None:
    code = "import convolt, sys; print([m for m in ('hydra', 'numpy', 'torch', 'pandas') if m in sys.modules])"
    code += "; convolt.train; print('torch' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "False False"]
    assert {*convolt.__all__} <= {*dir(convolt)}
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = convolt.trian


def test_a_run_is_that_of_the_command_line(
    here: str, command_here: Any, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # which other tests leave
    torch.set_num_threads(1)
    before, state = handlers(), torch.get_rng_state()
    run = train(here, *SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert (handlers(), "PL_GLOBAL_SEED" in os.environ) == (before, False)
    assert re.fullmatch(r"outputs/runs/lenet_digits_adam/[\d_-]+", str(run.directory))
    assert command_here(*SMALL[1:], "data=digits", "hydra.run.dir=typed").returncode == 0
    typed = load("typed")
    assert isinstance(typed, Run)
    assert typed.result["config_hash"] == run.result["config_hash"]
    assert typed.metrics == run.metrics
    pd.testing.assert_frame_equal(typed.predictions(probabilities=True), run.predictions(probabilities=True))
    again = train(here, *SMALL, run_dir="typed")
    assert again.result == typed.result
    assert not [*Path().glob("typed.old*")]
    assert train("resume=typed").result == typed.result


def test_mistakes_are_those_of_the_command_line(here: str) -> None:
    for overrides, line in {
        ("model=resnet81",): "there is no such model; did you mean 'resnet18'",
        ("-m",): 'train() takes overrides as text, such as train("model=lenet", "optim.lr=0.1")',
        ("study=depth",): 'study=depth is many runs: study("depth") runs them',
        ("rerun=x",): "python train.py rerun=RUN_DIR",
        ("hydra.sweeper.dry_run=true",): "it says nothing of one run",
        ("optim.lr",): "optim.lr is no override",
        ("resume=nowhere",): "there is no run",
    }.items():
        with pytest.raises(UserError, match=re.escape(line)) as caught:
            train(*overrides)
        assert caught.value._render_traceback_() == [f"error: {caught.value}"]
    with pytest.raises(UserError, match="give one of them"):
        train("hydra.run.dir=a", run_dir="b")
    with pytest.raises(UserError, match="did you mean 'optimizers'"):
        study("optimisers")
    with pytest.raises(UserError, match="the name of a study comes first"):
        study("data=digits")
    assert [*Path().iterdir()] == []
    assert RunError("no disk")._render_traceback_() == ["failed: no disk"]


def test_ctrl_c_leaves_a_run_that_goes_on_to_the_same_bits(here: str) -> None:
    settings = (here, *SMALL, "trainer.max_epochs=6", "augmentation=crop")

    def press() -> None:
        while not any(json.loads(file.read_text())["epoch"] >= 2 for file in Path("outputs").rglob("status.json")):
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    before = handlers()
    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt, match="the same call goes on") as caught:
        train(*settings)
    assert "interrupted: outputs/runs" in caught.value._render_traceback_()[0]  # type: ignore[attr-defined]
    assert handlers() == before
    (directory,) = Path("outputs/runs/lenet_digits_adam").iterdir()
    assert (Run(directory).status, Run(directory).metrics) == ("interrupted", {})
    with pytest.raises(UserError, match="has not been tested"):
        Run(directory).confusion_matrix()
    run = train(*settings)
    assert (run.directory, run.status) == (directory, "finished")

    beside: list[Run] = []
    thread = threading.Thread(target=lambda: beside.append(train(*settings, run_dir="straight")))
    thread.start()
    thread.join()
    (straight,) = beside
    assert run.metrics == straight.metrics
    clocks = ["seconds", "images_per_second"]
    pd.testing.assert_frame_equal(run.history.drop(columns=clocks), straight.history.drop(columns=clocks))
    assert train(*settings).directory != directory  # it has finished: a new one


def test_a_run_is_read(finished: Path, data_root: Path) -> None:
    run = load(finished)
    assert isinstance(run, Run)
    result = json.loads((finished / "result.json").read_text())
    assert (run.status, run.metrics, run.settings.optim.lr) == ("finished", result["metrics"], 0.001)
    assert [*run.history.index] == [1, 2, 3]
    assert run.history.loc[result["tested_epoch"], "val/accuracy"] == result["metrics"]["val/accuracy"]
    assert run.per_class.loc["3", "recall"] == result["per_class"][3]["recall"]

    table = run.predictions(probabilities=True)
    stored = np.load(finished / "predictions.npz")
    assert np.array_equal(table[[*"0123456789"]], stored["probabilities"])
    assert np.array_equal(table["predicted"].astype(int), stored["probabilities"].argmax(1))
    assert np.array_equal(table["confidence"], stored["probabilities"].max(1))
    assert (table["label"] == table["predicted"]).mean() == pytest.approx(run.metrics["test/accuracy"])

    images = np.load(data_root / "digits/test_images.npy")
    logits = run.network()(run.preprocess(images[:50]))
    assert np.array_equal(logits.argmax(1), stored["probabilities"][:50].argmax(1))
    assert run.evaluate() == {k: v for k, v in run.metrics.items() if k.startswith("test/")}
    assert f"<td>{run.metrics['test/accuracy']:.4f}</td>" in run._repr_html_()
    assert repr(run) == f"Run({str(finished)!r}, finished, test/accuracy {run.metrics['test/accuracy']:.4f})"


def test_a_run_that_diverged_says_so(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    file = tmp_path / "run/result.json"
    write_json(file, add_digest({**json.loads(file.read_text()), "diverged": True, "metrics": {}}))
    run = Run(tmp_path / "run")
    assert repr(run) == f"Run({str(tmp_path / 'run')!r}, finished, diverged)"
    assert "</b>, finished, diverged<br>" in run._repr_html_()


def test_figures_show_themselves_once(finished: Path) -> None:
    run = Run(finished)
    for figure in (run.curves(), run.confusion_matrix()):
        content, size = figure._repr_png_()  # type: ignore[attr-defined]
        width, height = (int.from_bytes(content[start : start + 4]) for start in (16, 20))
        assert (size["width"], size["height"]) == pytest.approx((width / 150 * 80, height / 150 * 80), abs=1)
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    assert run.figures["mistakes"]._repr_png_()[0] == (finished / "figures/mistakes.png").read_bytes()
    first = run.confusion_matrix().axes[0].texts[0].get_text()
    assert first == f"{100 * run.per_class.loc['0', 'recall']:.1f}"


def test_pictures_of_any_kind_are_predicted_alike(finished: Path, data_root: Path, tmp_path: Path) -> None:
    run, images = Run(finished), np.load(data_root / "digits/test_images.npy")[:4]
    known = run.predictions()[:4]
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    found = run.predict(images)
    assert [*found["predicted"]] == [*known["predicted"]]
    assert np.allclose(found["confidence"], known["confidence"], atol=0.01)
    assert [*run.predict([images[1], images[2, ..., 0]])["predicted"]] == [*known["predicted"][1:3]]
    assert [*run.predict(Image.fromarray(images[3, ..., 0]))["predicted"]] == [known["predicted"][3]]
    table = run.predict([tmp_path, images[0]], probabilities=True)
    assert [*table["image"]] == [str(tmp_path / "a.png"), str(tmp_path / "b.png"), 1]
    assert [table["predicted"][0], table["predicted"][2]] == [known["predicted"][0]] * 2
    assert table["error"][1] == "no image that Pillow knows"
    assert table["0"].isna().tolist() == [False, True, False]
    for wrong, line in ((images.astype(float), "bytes"), ([], "no image"), (3, "not int"), ("x.png", "no such file")):
        with pytest.raises(UserError, match=line):
            run.predict(wrong)


def test_a_study_is_read(tmp_path: Path) -> None:
    rows = {"sgd": {0: 0.80, 1: 0.82}, "adam": {0: 0.90, 1: 0.94, 2: None}}
    folder = make_study(tmp_path / "optimizers", rows, row_adam={"spec": {"published": {"test/accuracy": 0.93}}})
    loaded = load(folder)
    assert isinstance(loaded, Study)
    assert (loaded.title, loaded.question) == ("The optimizers", "Which is best?")
    assert loaded.status == {"finished": 4, "missing": 1}
    assert [run.directory.name for run in loaded.runs] == ["seed=0", "seed=1"] * 2
    table = loaded.table()
    assert table.loc["sgd", "mean"] == pytest.approx(0.81)
    assert table.loc["adam", ["n", "runs_expected"]].tolist() == [2, 3]
    assert table.loc["adam", ["mean", "difference", "published"]].tolist() == pytest.approx([0.92, 0.11, 0.93])
    assert table.loc["sgd", "interval_high"] == pytest.approx(0.81 + 12.7062 * 0.01, abs=1e-5)
    assert loaded.table(baseline="adam").loc["sgd", "difference"] == pytest.approx(-0.11)
    assert loaded.table("test/loss").loc["sgd", "mean"] == pytest.approx(0.19)
    with pytest.raises(UserError, match="no row 'adm'"):
        loaded.table(baseline="adm")
    assert "81.00 ± 12.71" in loaded._repr_html_()

    page = loaded.report()
    assert Path(page) == folder / "report/report.html"
    assert "adam" in page.summary[0]
    assert loaded.figures["comparison"].path == folder / "report/figures/comparison.png"
    assert "report/report.html" in page._repr_html_()


def test_sweeps_and_bundles_are_read_as_studies(tmp_path: Path) -> None:
    for rate, accuracy in (("0.1", 0.7), ("0.01", 0.8)):
        make_run(tmp_path / f"sweep/lr={rate}", accuracy, overrides=(f"optim.lr={rate}",))
        write_predictions(tmp_path / f"sweep/lr={rate}", [0, 1, 2, 2], [0, 1, 2, 1], start=5)
    table = load(tmp_path / "sweep").table()  # type: ignore[union-attr]
    assert table["mean"].to_dict() == {"optim.lr=0.01": 0.8, "optim.lr=0.1": 0.7}

    assert report([str(tmp_path / "sweep"), "--bundle", str(tmp_path / "sweep.zip")]) == 0
    bundle = load(tmp_path / "sweep.zip")
    assert isinstance(bundle, Study)
    assert bundle.table()["mean"].to_dict() == table["mean"].to_dict()
    run = bundle.runs[0]
    del bundle
    assert run.predictions().to_dict("list") == {
        "index": [5, 6, 7, 8],
        "label": ["cat", "dog", "eel", "dog"],
        "predicted": ["cat", "dog", "eel", "eel"],
    }
    with pytest.raises(UserError, match="keeps no probabilities"):
        run.predictions(probabilities=True)
    with pytest.raises(UserError, match="no folder"):
        load(tmp_path / "nothing")
    make_run(tmp_path / "other/run", 0.5)
    with pytest.raises(UserError, match="holds several studies or runs"):
        load(tmp_path)


def test_the_page_runs(here: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/python.md").read_text()
    code = "\n".join(line[4:] for line in re.findall(r"^(?:    .*|)$", page.split("## Functions")[0], re.MULTILINE))
    code = code.replace('train("', f'train(*{[here, *SMALL[2:]]}, "')
    names: dict[str, Any] = {}
    exec(code, names)
    run = names["run"]
    assert len(names["wrong"]) == round(359 * (1 - run.metrics["test/accuracy"]))
    assert f"finished {run.metrics['test/accuracy']}" in capsys.readouterr().out
    assert Path("curves.png").stat().st_size > 10_000
    for name in convolt.__all__:
        assert f"`{name}" in page or f"`convolt.{name}" in page
    for kind in (Run, Study):
        for name in [*vars(kind), "directory", "path"]:
            assert name.startswith("_") or re.search(rf"`{name}\b", page), name
