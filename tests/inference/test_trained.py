"""A finished run in use: evaluated again, asked about images of every kind, exported."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open

from convolt.config.compose import compose
from convolt.config.instantiate import build
from convolt.data.module import ImageDataModule
from convolt.inference import evaluate, export, predict
from convolt.inference.trained import TrainedRun
from convolt.system.files import add_digest, write_json

ROOT = Path(__file__).resolve().parents[2]
Bytes = NDArray[np.uint8]


def stored(data_root: Path) -> Bytes:
    """Return the digits' test images, (359, 24, 24)."""
    return np.asarray(np.load(data_root / "digits/test_images.npy")[..., 0])


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "own"))


def use(script: str, *arguments: str | Path, cwd: Path) -> Any:
    """Run a command as a user does."""
    return subprocess.run(
        [sys.executable, ROOT / f"{script}.py", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def answers(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any, str]:
    """Run predict.py --json in this process: exit status, document, errors."""
    status = predict.main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return status, json.loads(captured.out) if captured.out else None, captured.err


def test_evaluate_repeats_the_run_bit_for_bit(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(own)]) == 0
    said = capsys.readouterr().out
    assert "equal to the run's own numbers, bit for bit" in said
    report = json.loads((own / "evaluations/digits_test/report.json").read_text())
    result = json.loads((own / "result.json").read_text())
    assert report["equals_the_run"] is True
    assert {f"test/{k}": v for k, v in report["metrics"].items()} == {
        k: v for k, v in result["metrics"].items() if k.startswith("test/")
    }
    assert report["per_class"] == result["per_class"]
    assert report["confusion_matrix"] == result["confusion_matrix"]
    with (own / "evaluations/digits_test/report.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["class"] for row in rows] == [*"0123456789", "macro average", "weighted average"]
    assert f"{result['per_class'][3]['precision']:.4f}" in said
    assert (own / "evaluations/digits_test/confusion_matrix.png").exists()


def test_evaluate_takes_the_other_splits_without_augmentation(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(own), "split=val"]) == 0
    assert "bit for bit" in capsys.readouterr().out
    evaluation = evaluate.evaluate(TrainedRun(own), ["split=train"])
    assert len(evaluation.predicted.targets) == 1293
    again = evaluate.evaluate(TrainedRun(own), ["split=train"])
    assert np.array_equal(evaluation.predicted.probabilities, again.predicted.probabilities)
    assert not evaluation.of_own_images


def test_a_class_without_test_images_has_no_recall_and_counts_in_no_mean(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    images = {split: random.integers(0, 256, (30, 16, 16, 1)).astype(np.uint8) for split in ("train", "test")}
    labels = {"y_train": np.arange(30) % 3, "y_test": np.arange(30) % 2}
    np.savez(tmp_path / "a.npz", x_train=images["train"], x_test=images["test"], **labels)
    options = ("data=arrays", f"data.path={tmp_path / 'a.npz'}", f"data.root={tmp_path / 'data'}")
    result = train(*options, "trainer.max_epochs=1", "augmentation=none")
    rows, metrics = result["per_class"], result["metrics"]
    assert [row["recall"] is None for row in rows] == [False, False, True]
    for name in ("precision", "recall", "f1"):
        there = [row[name] for row in rows if row[name] is not None]
        assert metrics[f"test/{name}"] == pytest.approx(sum(there) / len(there))
    assert evaluate.main([str(tmp_path / "run")]) == 0
    assert "equal to the run's own numbers, bit for bit" in capsys.readouterr().out
    [folder] = (tmp_path / "run/evaluations").iterdir()
    report = json.loads((folder / "report.json").read_text())
    assert report["per_class"] == rows
    assert {name: report["macro_average"][name] for name in ("precision", "recall", "f1")} == {
        name: metrics[f"test/{name}"] for name in ("precision", "recall", "f1")
    }
    with (folder / "classes.csv").open() as lines:
        assert [row["recall"] == "" for row in csv.DictReader(lines)] == [False, False, True, False, False]


def test_a_number_that_is_none_is_told_as_such() -> None:
    run = type("Run", (), {"folder": Path(), "result": {"metrics": {"val/loss": None, "val/f1": None}}})()
    found = type("Found", (), {"predicted": type("P", (), {"split": "val"}), "metrics": {"loss": 1.0, "f1": None}})()
    assert evaluate.compare(run, found) == ["loss 1 instead of -"]


def test_a_result_that_is_not_met_is_told(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((own / "result.json").read_text())
    result["metrics"]["test/accuracy"] -= 0.5
    write_json(own / "result.json", add_digest(result))
    assert evaluate.main([str(own)]) == 0
    said = capsys.readouterr().out
    assert "bit for bit" not in said
    assert f"instead of {result['metrics']['test/accuracy']:.6g}" in said


def test_evaluate_takes_a_folder_with_the_same_classes(
    own: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = stored(data_root), np.load(data_root / "digits/test_labels.npy")
    for split, first in (("train", 0), ("test", 100)):
        for index in range(first, first + 100):
            path = tmp_path / "images" / split / str(labels[index]) / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[index]).save(path)
    options = ["data=folder", f"data.path={tmp_path / 'images'}", f"data.root={tmp_path / 'prepared'}"]
    evaluation = evaluate.evaluate(TrainedRun(own), options)
    with np.load(own / "predictions.npz") as kept:
        before = kept["probabilities"][100:200]
    order = np.lexsort(([str(index) for index in range(100, 200)], labels[100:200]))
    assert np.allclose(evaluation.predicted.probabilities, before[order], atol=1e-6)
    assert evaluation.data.padding == 4
    shutil.rmtree(tmp_path / "images/test/7")
    shutil.rmtree(tmp_path / "images/train/7")
    assert evaluate.main([str(own), *options]) == 2
    assert "it lacks '7'" in capsys.readouterr().err


def test_classes_are_mapped_by_their_names(data_root: Path) -> None:
    cfg = compose([f"data.root={data_root}"])
    data: ImageDataModule = build(cfg.data, "data", known_only=True)
    data.setup()
    before = data.labels("test")
    data.renumber_classes(list("9876543210"))
    assert np.array_equal(data.labels("test"), 9 - before)
    assert np.array_equal(data.labels("val").clip(max=-1), np.full(145, -1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["split=tset"], "split=tset is not one of train, val, test; did you mean 'test'?"),
        (["model=resnet18"], "model: an evaluation takes split, data"),
        (["data=cifar"], "there is no such data; did you mean 'cifar10'"),
        (["data.classes=['0','1']"], "it lacks '2', '3'"),
        (["data.sed=3"], "data.sed: there is no such key"),
        (["data=folder"], "data.path=FOLDER"),
        (["trainer.precision=bf17"], "trainer.precision=bf17 will not do"),
        (["split"], "is no override"),
        (["--splt"], "unknown option '--splt'"),
        (["data.val_fraction=0", "split=val"], "no val images"),
    ],
)
def test_mistakes_of_evaluate_are_one_line(
    finished: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert evaluate.main([str(finished), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("script", [evaluate, predict, export])
def test_a_directory_without_a_finished_run_is_one_line(
    script: Any, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(image)
    more = [str(image)] if script is predict else []

    def error_of(folder: Path) -> str:
        assert script.main([str(folder), *more]) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        return error

    assert f"did you mean '{own}'" in error_of(tmp_path / "onw")
    assert f"it holds runs, such as {own}" in error_of(tmp_path)
    damaged = own / "checkpoints/best.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert "is damaged" in error_of(own)
    damaged.unlink()
    assert "is missing" in error_of(own)
    text = (own / "result.json").read_text()
    (own / "result.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    assert "result.json is damaged" in error_of(own)
    (own / "result.json").unlink()
    assert "no result yet" in error_of(own)


def test_predict_says_what_the_run_said(
    own: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(own, tmp_path / "elsewhere")  # nothing but the directory is needed
    for index, image in enumerate(stored(data_root)):
        path = tmp_path / "images" / f"{index // 100}" / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    run = TrainedRun(tmp_path / "elsewhere")
    files, _ = predict.find_files([tmp_path / "images"])
    found = np.stack(
        [answer.probabilities for answer in predict.predict(run, files) if answer.probabilities is not None]
    )
    with np.load(run.folder / "predictions.npz") as kept:
        assert np.array_equal(found, kept["probabilities"])  # the same batches: the same bits
    assert predict.main([str(run.folder), str(files[5]), "--top", "2"]) == 0
    shown = capsys.readouterr().out
    for label in found[5].argsort()[::-1][:2]:
        assert f"{100 * found[5][label]:.2f}%" in shown
    assert shown.count("%") == 2


def kinds(image: Bytes) -> dict[str, Callable[[Path], None]]:
    """Return writers of one gray image (24, 24) in many kinds that all show the same."""
    gray = Image.fromarray(image)
    alpha = Image.new("L", gray.size, 255)
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(image)))  # orientation 6: turn clockwise to view
    exif = Image.Exif()
    exif[0x0112] = 6

    def palette(path: Path) -> None:
        gray.convert("RGB").quantize(256).save(path)

    return {
        "gray.png": gray.save,
        "color.png": gray.convert("RGB").save,
        "alpha.png": Image.merge("RGBA", [gray, gray, gray, alpha]).save,
        "gray_alpha.png": Image.merge("LA", [gray, alpha]).save,
        "palette.png": palette,
        "deep.png": Image.fromarray(image.astype(np.uint16) * 257).save,
        "deep.tiff": Image.fromarray(image.astype(np.uint16) * 257).save,
        "fractions.tiff": Image.fromarray(image.astype(np.float32) / 255).save,
        "inks.tiff": gray.convert("RGB").convert("CMYK").save,
        "plain.bmp": gray.save,
        "first.gif": lambda path: gray.save(path, save_all=True, append_images=[Image.new("L", gray.size)]),
        "turned.png": lambda path: turned.save(path, exif=exif),
        "UPPER.PNG": gray.save,
        "na\u00efve \u56fe.png": gray.save,
    }


def test_predict_takes_images_of_every_kind(
    finished: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kinds" / "below"
    folder.mkdir(parents=True)
    written = kinds(stored(data_root)[4])
    for name, write in written.items():
        write(folder / name)
    (folder / "notes.txt").write_text("no image, and in a folder not taken for one")
    (folder / ".hidden.png").write_text("")
    status, document, errors = answers(capsys, finished, tmp_path / "kinds", "--top", "10")
    assert status == 0, errors
    found = {
        Path(entry["file"]).name: {t["class"]: t["probability"] for t in entry["top"]}
        for entry in document["predictions"]
    }
    assert set(found) == set(written)
    with np.load(finished / "predictions.npz") as kept:
        expected = kept["probabilities"][4]
    for name, probabilities in found.items():
        if name == "turned.png":
            continue
        values = np.array([probabilities[c] for c in "0123456789"])
        assert np.allclose(values, expected, atol=0.02), name  # palettes and inks round
    assert document["predictions"][0]["top"][0]["probability"] == max(found["UPPER.PNG"].values())


def test_predict_turns_as_exif_says_lays_on_white_and_cuts_the_middle(
    finished: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = stored(data_root)[4]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    pairs: dict[str, tuple[Image.Image, Image.Image]] = {
        "exif": (Image.fromarray(image), Image.fromarray(np.ascontiguousarray(np.rot90(image, -1)))),
        "clear": (Image.new("RGBA", (24, 24), (9, 9, 9, 0)), Image.new("L", (24, 24), 255)),
        "wide": (Image.fromarray(np.pad(image, ((0, 0), (20, 20)), constant_values=200)), Image.fromarray(image)),
        "bits": (Image.fromarray(image > 128), Image.fromarray((image > 128).astype(np.uint8) * 255)),
        "one_pixel": (Image.new("L", (1, 1), 77), Image.new("L", (24, 24), 77)),
    }
    for name, (odd, plain) in pairs.items():
        odd.save(tmp_path / f"{name}_odd.png", **({"exif": exif} if name == "exif" else {}))
        plain.save(tmp_path / f"{name}_plain.png")
    status, document, _ = answers(capsys, finished, tmp_path, "--top", "10")
    found = {Path(entry["file"]).stem: entry["top"] for entry in document["predictions"]}
    assert status == 0
    for name in pairs:
        assert found[f"{name}_odd"] == found[f"{name}_plain"], name


def test_predict_names_what_it_cannot_read_and_goes_on(
    finished: Path, data_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(stored(data_root)[0]).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello")
    status, document, errors = answers(capfd, finished, tmp_path)
    assert status == 1
    assert [Path(entry["file"]).name for entry in document["predictions"]] == ["good.png"]
    assert {Path(entry["file"]).name for entry in document["skipped"]} == {"cut.png", "empty.png", "text.jpg"}
    assert all(f"skipped: {tmp_path / name}" in errors for name in ("cut.png", "empty.png", "text.jpg"))
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["goood.png"], "did you mean"),
        (["none"], "there is no such file"),
        (["hollow"], "holds no images"),
        (["good.png", "--top", "0"], "--top 0 will not do"),
        (["good.png", "--top", "x"], "invalid int value"),
        (["good.png", "--jsno"], "did you mean '--json'"),
        ([], "required: IMAGE_OR_FOLDER"),
    ],
)
def test_mistakes_of_predict_are_one_line(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hollow").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    assert predict.main([str(finished), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


LOAD = """
import json, sys, numpy as np, torch
from safetensors import safe_open
images = torch.from_numpy(np.load(sys.argv[2]))
program = torch.export.load(sys.argv[1] + "/model.pt2").module()
with safe_open(sys.argv[1] + "/model.safetensors", framework="pt") as file:
    metadata = file.metadata()
assert "convolt" not in sys.modules
with torch.no_grad():
    np.save(sys.argv[3], program(images).softmax(1).numpy())
print(metadata["classes"])
"""


def test_exported_files_give_the_runs_probabilities_in_a_fresh_process(
    own: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = torch.from_numpy(stored(data_root)[:50, :, :, None].copy())
    np.save(tmp_path / "inputs.npy", TrainedRun(own).input_spec.preprocessing()(images).numpy())
    assert export.main([str(own), "--output", str(tmp_path / "out")]) == 0
    assert "model.pt2" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.pt2", "model.safetensors"]
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path / "out", tmp_path / "inputs.npy", tmp_path / "found.npy"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout) == list("0123456789")
    with np.load(own / "predictions.npz") as kept:
        assert np.allclose(np.load(tmp_path / "found.npy"), kept["probabilities"][:50], atol=1e-5)


def test_a_program_with_preprocessing_takes_bytes(own: Path, data_root: Path) -> None:
    assert export.main([str(own), "--preprocessing", "--format", "torch_export"]) == 0
    extra = {"metadata.json": ""}
    program = torch.export.load(own / "export/model.pt2", extra_files=extra).module()
    assert json.loads(json.loads(extra["metadata.json"])["classes"]) == TrainedRun(own).input_spec.classes
    images = torch.from_numpy(stored(data_root)[:50, :, :, None].copy())
    with torch.no_grad(), np.load(own / "predictions.npz") as kept:
        assert np.allclose(program(images).softmax(1).numpy(), kept["probabilities"][:50], atol=1e-5)


def test_the_weights_are_the_networks_and_come_with_what_is_needed(own: Path, tmp_path: Path) -> None:
    assert export.main([str(own), "--format", "safetensors"]) == 0
    weights = TrainedRun(own).task().network.state_dict()
    with safe_open(own / "export/model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(weights)
        assert all(torch.equal(file.get_tensor(name), value) for name, value in weights.items())
        metadata = file.metadata()
    assert json.loads(metadata["model"])["_target_"] == "convolt.models.lenet.LeNet"
    assert json.loads(metadata["preprocessing"])["padding"] == 4


def test_a_program_that_differs_is_not_kept(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "TOLERANCE", -1)
    with pytest.raises(RuntimeError, match=r"model\.pt2.* not kept"):
        export.main([str(own), "--format", "torch_export"])
    assert not list((own / "export").iterdir())


def test_auxiliary_heads_are_left_out() -> None:
    cfg = compose(["model=googlenet", "data=cifar10"])
    network: torch.nn.Module = build(cfg.model, "model").eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = network(images)
        assert any("auxiliary" in name for name in network.state_dict())
        assert export.remove_unused_modules(network, images) == ["auxiliary"]
        assert not any("auxiliary" in name for name in network.state_dict())
        assert torch.equal(network(images), before)


def test_mistakes_of_export_are_one_line(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["--format", "onxn"], "did you mean 'onnx'?"),
        (["--output", str(tmp_path / "file")], "cannot write to"),
    ):
        assert export.main([str(finished), *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1


def test_without_onnx_a_line_says_what_to_install(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda _name: None)
    assert export.main([str(finished), "--format", "onnx"]) == 2
    assert "needs onnx, onnxscript, onnxruntime: pip install 'convolt[export]'" in capsys.readouterr().err


@pytest.mark.parametrize("with_preprocessing", [False, True])
def test_onnx_runtime_says_what_the_network_says(finished: Path, tmp_path: Path, with_preprocessing: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    options = ["--format", "onnx", "--output", str(tmp_path), *(["--preprocessing"] if with_preprocessing else [])]
    assert export.main([str(finished), *options]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()

    run = TrainedRun(finished)
    network = run.task().network
    for images in (1, 3, 7):
        stored = torch.randint(
            0, 256, (images, run.input_spec.stored_size, run.input_spec.stored_size, 1), dtype=torch.uint8
        )
        inputs = run.input_spec.preprocessing()(stored)
        (logits,) = session.run(None, {taken.name: (stored if with_preprocessing else inputs).numpy()})
        with torch.inference_mode():
            torch.testing.assert_close(torch.from_numpy(logits), network(inputs), rtol=1e-4, atol=1e-4)
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["classes"]) == run.input_spec.classes


@pytest.mark.parametrize("script", ["evaluate", "predict", "export"])
def test_help_shows_commands(script: str, tmp_path: Path) -> None:
    done = use(script, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"python {script}.py RUN_DIR" in done.stdout


@pytest.mark.parametrize("model", ["resnet20", "allcnn"])
def test_other_networks_are_drawn_evaluated_and_exported(
    train: Any, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("debug.limit_batches=1", "trainer.max_epochs=1", "trainer.precision=32-true", "data.eval_batch_size=16")
    train(f"model={model}", "pictures.enabled=true", "pictures.graph=false", *small)
    assert (
        len(list((tmp_path / "run/figures").glob("*.png"))) >= 12
    )  # without mistakes or hits, there are no sheets of them
    assert evaluate.main([str(tmp_path / "run")]) == 0
    assert "bit for bit" in capsys.readouterr().out
    assert export.main([str(tmp_path / "run"), "--format", "safetensors"]) == 0
