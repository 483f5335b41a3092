import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from convolt.errors import UserError
from convolt.models.blocks import BatchNorm
from convolt.models.resnet9 import ResNet9
from convolt.training import compilation, run
from convolt.training.compilation import compile_forward, should_compile
from training.test_ddp import interrupted_after

COMPILER = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="there is no C++ compiler")


def test_auto_compiles_only_what_was_compiled_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("cpu", "cuda", "mps"):
        assert not should_compile("auto", device, resumed=False)
        assert should_compile("auto", device, resumed=True)
        assert not should_compile(False, device, resumed=True)
    monkeypatch.setattr(compilation.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert should_compile(True, "cpu", resumed=False)
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    assert should_compile(True, "cuda", resumed=False)
    with pytest.raises(UserError, match=r"trainer\.compile=true needs a C\+\+ compiler"):
        should_compile(True, "cpu", resumed=False)


@COMPILER
def test_a_compiled_pass_has_the_networks_gradients_and_statistics() -> None:
    torch.manual_seed(0)
    networks = []
    images = torch.randn(6, 3, 16, 16)
    for compiling in (False, True):
        torch.manual_seed(1)
        network = ResNet9(in_channels=3, num_classes=5, image_size=16, width=8, batchnorm=BatchNorm())
        forward = compile_forward(network, 10**6, "cpu", lenient=False) if compiling else network
        for _ in range(2):
            forward(images).square().mean().backward()
        networks.append(network)
    plain, fast = networks
    assert list(plain.state_dict()) == list(fast.state_dict())
    for (name, buffer), same in zip(plain.state_dict().items(), fast.state_dict().values(), strict=True):
        torch.testing.assert_close(same, buffer, msg=name)
    for expected, found in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("accumulates", "mode"), [(False, "reduce-overhead"), (True, "default")])
def test_small_steps_are_replayed_but_where_gradients_are_added_up(
    monkeypatch: pytest.MonkeyPatch, accumulates: bool, mode: str
) -> None:
    modes = []
    monkeypatch.setattr(torch, "compile", lambda forward, *, mode, dynamic: modes.append(mode) or forward)
    compile_forward(torch.nn.Flatten(), 10, "cuda", lenient=False, accumulates=accumulates)
    assert modes == [mode]


def test_a_run_says_whether_it_adds_gradients_up(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(compilation, "compile_forward", lambda network, *_, **more: asked.append(more) or network)
    monkeypatch.setattr(run, "should_compile", lambda *_, resumed: True)
    train("trainer.accumulate_grad_batches=2", "trainer.max_epochs=1", "data.train_size=64")
    assert asked == [{"lenient": True, "accumulates": True}]


def test_a_run_that_auto_compiled_before_resumes_compiled(
    train: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compilation, "compile_forward", lambda network, *_, **_more: network)
    monkeypatch.setattr(run, "should_compile", lambda *_, resumed: True)
    with interrupted_after(1):
        train("data.train_size=64")
    monkeypatch.undo()
    monkeypatch.setattr(compilation, "compile_forward", lambda network, *_, **_more: network)
    assert train("data.train_size=64")["compiled"]
    assert "under other conditions" not in capsys.readouterr().out


@COMPILER
def test_a_compiled_run_learns_records_it_and_is_evaluated_as_any_other(train: Any, tmp_path: Path) -> None:
    plain = train("trainer.precision=32-true", directory="plain")
    fast = train("trainer.precision=32-true", "trainer.compile=true", directory="fast")
    assert (plain["compiled"], fast["compiled"]) == (False, True)
    for name, value in plain["metrics"].items():
        assert fast["metrics"][name] == pytest.approx(value, abs=0.03), name
    weights = [
        torch.load(tmp_path / name / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for name in ("plain", "fast")
    ]
    assert list(weights[0]) == list(weights[1])
