"""Bundles as files: what is in them, what is not, and what cannot be read."""

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from convolt.config.compose import compose
from convolt.errors import UserError
from convolt.reports.report import main
from convolt.runs.bundle import pack_run, read_bundle, without_folders, write_bundle
from convolt.runs.config_hash import config_hash
from convolt.runs.files import RunFiles
from convolt.runs.predicted_classes import PredictedClasses, pack_predicted_classes, read_predicted_classes
from convolt.runs.stored_settings import stored_hash
from convolt.system.files import add_digest, write_text
from written_study import make_run, make_study, write_predictions


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    study = make_study(tmp_path / "studies/optims", {"sgd": {0: 0.8, 1: 0.9}, "adam": {0: 0.7, 1: None}})
    write_predictions(study / "sgd/seed=0", [0, 1, 2, 1], [0, 1, 1, 1])
    assert main([str(study), "--bundle", str(tmp_path / "study.zip")]) == 0
    return tmp_path / "study.zip"


def refuse(path: Path, *words: str) -> None:
    """Check that a bundle is refused in a line, by the command too."""
    with pytest.raises(UserError) as refused:
        read_bundle(path)
    line = str(refused.value)
    assert "\n" not in line
    assert str(path) in line
    for word in words:
        assert word in line
    before = sorted(path.parent.iterdir())
    assert main([str(path)]) == 2
    assert sorted(path.parent.iterdir()) == before, "nothing is left"


def rewrite(path: Path, change: Any) -> None:
    """Write a bundle anew: `change` gets the entries by name, and the manifest is signed again."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(entries.pop("bundle.json"))
    change(entries, manifest)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bundle.json", json.dumps(add_digest(manifest)))
        for name, data in entries.items():
            archive.writestr(name, data)


def test_what_is_no_file_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.zip"
    os.mkfifo(pipe)  # to open it would wait for ever
    with pytest.raises(UserError, match="is no file that can hold a bundle"):
        read_bundle(pipe)
    study = make_study(tmp_path / "optims", {"sgd": {0: 0.8}})
    assert main([str(study), "--bundle", str(pipe)]) == 2
    assert pipe.is_fifo()


def test_the_same_state_gives_the_same_bytes_and_a_bundle_gives_itself(bundle: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    for source in (tmp_path / "studies/optims", bundle):
        assert main([str(source), "--bundle", str(again)]) == 0
        assert again.read_bytes() == bundle.read_bytes()
    names = zipfile.ZipFile(bundle).namelist()
    assert "adam/seed=1/status.json" not in names, "never started"
    assert [name for name in names if "sgd/seed=0" in name] == [
        "sgd/seed=0/.hydra/config.yaml", "sgd/seed=0/.hydra/overrides.yaml", "sgd/seed=0/metrics.csv",
        "sgd/seed=0/predicted_classes.npz", "sgd/seed=0/result.json", "sgd/seed=0/status.json",
    ]  # fmt: skip


def test_predicted_classes_take_a_byte_each_and_places_that_count_from_0_none(tmp_path: Path) -> None:
    many = np.arange(10_000, dtype=np.int32) % 10
    for targets, start in ((many, 0), (many * 40, 7)):
        found = PredictedClasses(targets[::-1].copy(), targets, np.arange(start, start + len(many)))
        (tmp_path / "predicted_classes.npz").write_bytes(pack_predicted_classes(found))
        with np.load(tmp_path / "predicted_classes.npz") as stored:
            assert ("indices" in stored) == (start > 0)
            assert stored["targets"].dtype == (np.uint16 if start else np.uint8)
        read = read_predicted_classes(tmp_path)
        assert read is not None
        assert read.shows_same_images(found)
        assert np.array_equal(read.predicted, found.predicted)
        assert read.predicted.dtype == np.int32


def test_no_folder_of_the_machine_stands_in_a_run_and_its_hash_stays(tmp_path: Path) -> None:
    home, run = str(Path.home()), tmp_path / "run"
    typed = [f"data.root={tmp_path}/private", "data.stage=true", "optim.lr=0.2"]
    cfg = compose(typed)
    OmegaConf.update(cfg, "logger", {"csv": {"save_dir": "/home/me/logs"}}, force_add=True)
    cfg.init_from = {"run": f"{tmp_path}/private/run7", "checkpoint": "best.ckpt", "sha256": "a" * 64}
    make_run(run, None, status={"state": "failed", "config_hash": "b", "host": "a-host", "pid": 5, "traceback": "/x"})
    write_text(run / ".hydra/config.yaml", OmegaConf.to_yaml(cfg))
    write_text(run / ".hydra/overrides.yaml", OmegaConf.to_yaml(OmegaConf.create([*typed, "init_from=/home/me/run7"])))
    packed = pack_run(run, "failed", f"cannot write to {home}/my data/x.csv ({tmp_path}/private/c)")
    said = b"".join(packed.values()).decode()
    for word in (str(tmp_path), home, "private", "a-host", "traceback", "/home", "csv:", "pid"):
        assert word not in said
    assert "init_from=run7" in said
    laid_out = tmp_path / "laid_out"
    (laid_out / ".hydra").mkdir(parents=True)
    (laid_out / ".hydra/config.yaml").write_bytes(packed[".hydra/config.yaml"])
    assert stored_hash(laid_out) == config_hash(cfg)
    assert RunFiles(laid_out).raw_settings()["data"]["root"] == "data"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("cannot read /a/b.c/d: no", "cannot read d: no"),
        ("a/b and 1/2, https://x.org/a/b", "a/b and 1/2, https://x.org/a/b"),
        (r"in C:\Users\me\x.png", "in x.png"),
        ("'~/images/cat.png' or /b", "'cat.png' or b"),
        ({"files": ["/a/b: bad"], "n": 3}, {"files": ["b: bad"], "n": 3}),
    ],
)
def test_folders_are_left_out_of_texts(text: Any, left: Any) -> None:
    assert without_folders(text) == left


def test_any_flipped_bit_and_any_cut_is_told_or_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    whole, content = bundle.read_bytes(), read_bundle(bundle).files()
    damaged = tmp_path / "damaged.zip"
    lines = []
    for place in range(0, len(whole), 23):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        damaged.write_bytes(flipped)
        try:
            assert read_bundle(damaged).files() == content
        except UserError as error:
            lines.append(str(error))
    assert all(line.startswith(str(damaged)) for line in lines)
    assert len(lines) > 0.8 * len(whole) / 23
    for size in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        damaged.write_bytes(whole[:size])
        refuse(damaged, "copy it again")


def test_what_is_in_it_is_compared_with_its_digests_even_if_signed_anew(bundle: Path) -> None:
    def change(entries: dict[str, bytes], _: Any) -> None:
        entries["sgd/seed=0/metrics.csv"] += b"\n3,1"

    rewrite(bundle, change)
    refuse(bundle, "sgd/seed=0/metrics.csv is not what was written")


def test_foreign_files_and_other_formats_are_named(bundle: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.zip"
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("thesis.txt", "hello")
    refuse(foreign, "no bundle.json")
    (tmp_path / "notes.txt").write_text("hello")
    refuse(tmp_path / "notes.txt", "no bundle")
    for version in (0, 2):
        rewrite(bundle, lambda _, manifest, version=version: manifest.update(format=version))
        refuse(bundle, f"its format is {version}, and this version reads 1")
    with pytest.raises(UserError, match="there is no bundle"):
        read_bundle(tmp_path / "nothing.zip")
    with pytest.raises(UserError, match="is a folder"):
        read_bundle(tmp_path)
    with pytest.raises(UserError, match="is there and is no bundle"):
        write_bundle(read_bundle(Path(shutil.copy(_intact(tmp_path), tmp_path / "c.zip"))), tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "hello"


def _intact(tmp_path: Path) -> Path:
    assert main([str(tmp_path / "studies/optims"), "--bundle", str(tmp_path / "intact.zip")]) == 0
    return tmp_path / "intact.zip"


@pytest.mark.parametrize("place", ["../elsewhere", "a/../../b", "/tmp/x", "a//b", "C:x", "a\\b", ".", "a/..."])
def test_no_name_leads_out_of_the_folder(bundle: Path, place: str) -> None:
    def move(entries: dict[str, bytes], manifest: Any) -> None:
        manifest["runs"].append(place)
        for name in ("status.json", "result.json"):
            entries[f"{place}/{name}"] = entries[f"sgd/seed=0/{name}"]
            manifest["files"][f"{place}/{name}"] = manifest["files"][f"sgd/seed=0/{name}"]

    rewrite(bundle, move)
    refuse(bundle, "a folder is called")


def test_neither_do_the_study_nor_the_name_of_the_folder(bundle: Path) -> None:
    whole = bundle.read_bytes()
    rewrite(bundle, lambda _, manifest: manifest.update(folder="../x"))
    refuse(bundle, "a folder is called")
    bundle.write_bytes(whole)

    def change(entries: dict[str, bytes], manifest: Any) -> None:
        entries["study.json"] = entries["study.json"].replace(b"sgd/seed=0", b"../seed=0")
        manifest["files"]["study.json"] = hashlib.sha256(entries["study.json"]).hexdigest()

    rewrite(bundle, change)
    refuse(bundle, "a folder is called '../seed=0'")


def test_doubled_linked_strange_and_huge_files_are_refused(bundle: Path) -> None:
    whole = bundle.read_bytes()
    with zipfile.ZipFile(bundle, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("study.json", "{}")
    refuse(bundle, "twice")
    bundle.write_bytes(whole)
    with zipfile.ZipFile(bundle, "a") as archive:
        link = zipfile.ZipInfo("adam/seed=1")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    refuse(bundle, "plain files")
    bundle.write_bytes(whole)
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("more.json", "{}")
    refuse(bundle, "its files are not those of bundle.json")
    bundle.write_bytes(whole)
    with zipfile.ZipFile(bundle, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(20_000_000))
    refuse(bundle, "far larger")


def test_a_damaged_run_is_told_when_it_is_bundled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", 0.9)
    (run / "predictions.npz").write_bytes(b"PK")
    assert main([str(run), "--bundle", str(tmp_path / "x.zip")]) == 2
    assert "predictions.npz cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()


def test_segmentation_says_that_it_keeps_no_masks_and_paths_that_stay_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", 0.9)
    np.savez(run / "predictions.npz", masks=np.zeros((2, 3, 3), np.uint8), indices=np.arange(2))
    (run / ".hydra/config.yaml").write_text("{seed: 0, data: {path: /home/me/images, root: /home/me/data}}")
    assert main([str(run), "--bundle", str(tmp_path / "x.zip")]) == 0
    said = capsys.readouterr().out
    assert "predicted masks are not kept: 1 run" in said
    assert "since the settings' hash covers them: data.path=/home/me/images\n" in said
    assert "predicted_classes.npz" not in zipfile.ZipFile(tmp_path / "x.zip").namelist()
