"""A run's directory is read through one class: what is missing or damaged reads as empty."""

import subprocess
import sys
from pathlib import Path

import pytest

from convolt.runs.files import RunFiles, read_index
from convolt.system.files import add_digest, read_json, read_object, write_json
from convolt.system.locks import make_lock


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_an_empty_folder_is_no_run_and_reads_as_empty(tmp_path: Path) -> None:
    files = RunFiles(tmp_path / "optim.lr=0.1,seed=2")
    assert not files.is_run()
    assert files.result() == files.status() == files.preprocessing() == files.raw_settings() == {}
    assert files.overrides() == ["optim.lr=0.1", "seed=2"]
    assert (files.changes("a"), files.hashes("a"), files.epochs_trained()) == ([], {"a"}, 0)
    assert files.is_locked() is None


def test_a_result_is_read_by_the_hash_of_its_settings(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    result = add_digest({"config_hash": "a", "metrics": {}})
    write_json(files.result_file, result)
    assert files.is_run()
    assert files.result() == files.result("a") == result
    assert files.result("b") == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "status.json cannot be read: "),
        ("{", "status.json cannot be read: Expecting"),
        ("[" * 100_000, "status.json cannot be read: "),
        ("[1]", "status.json cannot be read: it holds no JSON object"),
        ('{"state": "finished", "digest": "0"}', "status.json is damaged: its content is not what was signed"),
    ],
)
def test_a_damaged_file_reads_as_empty_and_reports_get_the_reason(
    tmp_path: Path, text: str | None, reason: str
) -> None:
    files = RunFiles(tmp_path)
    if text:
        write(files.status_file, text)
    assert files.status() == {}
    assert read_json(files.status_file) is None
    with pytest.raises(ValueError, match=reason):
        read_object(files.status_file)


def test_settings_and_overrides_are_plain_yaml(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    write(files.config_file, "seed: 3\ndata: {size: '${seed}'}\n")
    write(files.overrides_file, "- seed=3\n- 7\n")
    assert files.raw_settings() == {"seed": 3, "data": {"size": "${seed}"}}
    assert files.overrides() == ["seed=3", "7"]
    for text in ("seed: [3\n", "- 1\n", "day: 2026-13-45\n", "\x00"):
        write(files.config_file, text)
        assert files.raw_settings() == {}


def test_the_index_tells_the_epochs(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    files.checkpoints.mkdir()
    good = {"best.ckpt": {"sha256": "a", "epochs": 9}, "epoch-0007.ckpt": {"sha256": "b", "epochs": 7}}
    write_json(files.checkpoints / "index.json", good | {"epoch-0008.ckpt": {"epochs": "8"}, "epoch-0009.ckpt": 3})
    assert read_index(files.checkpoints) == good
    assert files.epochs_trained() == 7
    assert files.epoch_checkpoint(7) == files.checkpoints / "epoch-0007.ckpt"


def test_changes_lead_from_the_first_settings_to_those_asked_for(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    changes = [{"config_hash": old, "to": new} for old, new in ("ab", "xy", "bc")]
    write_json(files.changes_file, add_digest({"changes": changes}))
    assert files.changes("c") == [changes[0], changes[2]]
    assert files.hashes("c") == {"a", "b", "c"}
    assert files.hashes("b") == {"a", "b"}


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_a_lock_is_seen_without_being_taken(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    with make_lock(files.lock_file):
        assert files.is_locked() is True
    files.lock_file.touch()
    assert files.is_locked() is False


def test_reading_imports_neither_torch_nor_omegaconf() -> None:
    code = "import convolt.runs.files, sys; print({'torch', 'omegaconf', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
