"""What is kept of a checkout that was changed since its commit."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from convolt.cli.rerun import rerun
from convolt.reports.provenance import shorten_hash
from convolt.runs import code_state as code_states
from convolt.runs import directory
from convolt.runs.code_state import MAX_PATCH_BYTES, CodeState, read_code_state


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    return subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one committed file in a folder of its own."""
    folder = tmp_path / "checkout"
    (folder / "src").mkdir(parents=True)
    (folder / "src/code.py").write_text("a = 1\n")
    git(folder.parent, "init", "-q", str(folder))
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def test_a_clean_checkout_has_a_commit_and_no_patch(checkout: Path) -> None:
    (checkout / "untracked.py").write_text("b = 2\n")
    assert read_code_state(checkout / "src/code.py") == CodeState(git(checkout, "rev-parse", "HEAD").strip(), b"")


def test_a_patch_brings_a_clean_checkout_to_the_state_that_ran(checkout: Path, tmp_path: Path) -> None:
    file = checkout / "src/code.py"
    (checkout / "pixels.bin").write_bytes(bytes(range(256)))
    git(checkout, "add", "pixels.bin")
    file.write_text("a = 3\n")
    state = read_code_state(file)
    assert state
    assert state.commit.startswith(git(checkout, "rev-parse", "HEAD").strip() + "-dirty:")
    git(tmp_path, "clone", "-q", str(checkout), str(tmp_path / "clone"))
    (tmp_path / "code.patch").write_bytes(state.patch)
    git(tmp_path / "clone", "apply", str(tmp_path / "code.patch"))
    assert (tmp_path / "clone/src/code.py").read_text() == "a = 3\n"
    assert (tmp_path / "clone/pixels.bin").read_bytes() == bytes(range(256))
    file.write_text("a = 4\n")
    other = read_code_state(file)
    assert other
    assert other.commit != state.commit
    assert shorten_hash("git_commit", other.commit) == other.commit[:8] + other.commit[40:]


def test_a_patch_does_not_depend_on_the_users_git(checkout: Path, tmp_path: Path, monkeypatch: Any) -> None:
    file = checkout / "src/code.py"
    file.write_text("a = 3\n")
    state = read_code_state(file)
    for key, value in (("diff.noprefix", "true"), ("diff.context", "0"), ("color.ui", "always")):
        git(checkout, "config", key, value)
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))  # as below a hook of another repository
    assert state
    assert read_code_state(file) == state


def test_a_patch_that_takes_git_too_long_leaves_the_commit(checkout: Path, monkeypatch: Any) -> None:
    file, git_here = checkout / "src/code.py", code_states._git
    file.write_text("a = 3\n")

    def slow(file: Path, *arguments: str) -> bytes:
        if arguments[0] == "diff-index":
            raise subprocess.TimeoutExpired("git diff-index", 10)
        return git_here(file, *arguments)

    monkeypatch.setattr(code_states, "_git", slow)
    state = read_code_state(file)
    assert state
    assert state.commit == git(checkout, "rev-parse", "HEAD").strip() + "-dirty"
    assert state.patch.startswith(b"left out: git does not list the changes: ")


def test_a_patch_that_is_too_large_is_left_out_and_its_digest_kept(checkout: Path) -> None:
    file = checkout / "src/code.py"
    file.write_text("a = 3\n" * (MAX_PATCH_BYTES // 6))
    state = read_code_state(file)
    assert state
    assert state.patch.startswith(b"left out: the changes take 1,2")
    assert len(state.patch) < 200
    assert state.commit.split(":")[1] in state.patch.decode()


def test_what_is_installed_below_somebodys_checkout_is_of_none(checkout: Path, tmp_path: Path) -> None:
    installed = checkout / ".venv/site-packages/convolt"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("a = 1\n")
    (tmp_path / "wheel.py").write_text("a = 1\n")
    assert read_code_state(installed / "code.py") is None
    assert read_code_state(tmp_path / "wheel.py") is None


def test_git_runs_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([CodeState("a" * 40, b""), CodeState("b" * 40, b"")])
    monkeypatch.setattr(code_states, "read_code_state", lambda file: next(states))
    code_states.code_state.cache_clear()
    assert code_states.code_state() == code_states.code_state() == CodeState("a" * 40, b"")
    code_states.code_state.cache_clear()


def test_a_run_keeps_the_patch_and_a_rerun_names_what_differs(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = CodeState("a" * 40 + "-dirty:11111111", b"then"), CodeState("a" * 40 + "-dirty:22222222", b"now")
    monkeypatch.setattr(directory, "code_state", lambda: before)
    assert train("trainer.max_epochs=1")["git_commit"] == before.commit
    assert (tmp_path / "run/code.patch").read_bytes() == b"then"
    monkeypatch.setattr(directory, "code_state", lambda: after)
    assert rerun(tmp_path / "run")
    said = capsys.readouterr().out
    assert f"git_commit: {before.commit} then, {after.commit} now\n" in said
    for folder in ("run", "run-rerun"):
        assert f"changed since that commit: {tmp_path / folder / 'code.patch'}\n" in said
    monkeypatch.setattr(directory, "code_state", lambda: CodeState("a" * 40, b""))
    train("trainer.max_epochs=1", "force=true")
    assert not (tmp_path / "run/code.patch").exists()
