"""Memory that runs out, injected and for real, and the largest batch that fits."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from convolt.errors import RunError, UserError
from convolt.system import memory
from convolt.system.files import format_bytes
from convolt.tasks.classification import ClassificationTask
from convolt.training.batch_size import find_batch_size
from convolt.training.run import run

CUDA = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB"
CPU = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (torch.OutOfMemoryError(CUDA), int(2.5 * 2**30)),
        (RuntimeError(CPU + "4194304 bytes. Error code 12 (Cannot allocate memory)"), 4 * 2**20),
        (MemoryError("Unable to allocate 1.50 MiB for an array with shape (3,)"), 3 * 2**19),
        (MemoryError(), None),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), None),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), None),
        (RuntimeError("GET was unable to find an engine to execute this computation"), None),
        (RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"), None),
        (RuntimeError("CUDA error: out of memory"), None),
        (RuntimeError("NCCL error: unhandled cuda error. Last error: Cuda failure 2 'out of memory'"), None),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB). Tried to allocate 512.00 MB"), 2**29),
    ],
)
def test_what_was_asked_for_is_read_from_the_error(error: Exception, size: int | None) -> None:
    assert memory.is_out_of_memory(error)
    assert memory.requested_bytes(error) == size


def test_other_errors_are_no_lack_of_memory() -> None:
    assert not memory.is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not memory.is_out_of_memory(ValueError("out of memory"))


def test_what_is_at_hand_is_bounded_by_the_limit_of_the_process() -> None:
    assert 2**20 < (memory.available_bytes("cpu") or 0) < 2**50
    assert [format_bytes(size) for size in (3, 2**20 * 3, 5 * 2**29)] == ["3 bytes", "3 MiB", "2.5 GiB"]


def test_memory_that_pytorch_keeps_unused_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    assert memory.available_bytes("cuda:0") == 150


@pytest.mark.parametrize(
    ("step", "error", "expected"),
    [
        ("training_step", torch.OutOfMemoryError(CUDA), "on the GPU in training: 2.5 GiB asked for"),
        (
            "training_step",
            RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            "on the GPU in training: more asked for than there is",
        ),
        ("training_step", MemoryError(), "on the CPU in training: more asked for than there is"),
        ("test_step", RuntimeError(CPU + "4194304 bytes"), "on the CPU in evaluation: 4 MiB asked for"),
    ],
)
def test_a_run_without_memory_fails_with_one_line(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception, expected: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(ClassificationTask, step, fail)
    monkeypatch.setattr("convolt.training.failures.available_bytes", lambda device: 2**30)
    with pytest.raises(RunError) as raised:
        run(settings("data.batch_size=64", "trainer.precision=32-true"), tmp_path / "run")
    line = str(raised.value)
    assert line.startswith(f"out of memory {expected}, 1 GiB available; ")
    assert "\n" not in line
    batch = "data.batch_size=32 trainer.accumulate_grad_batches=2" if "training" in step else "data.eval_batch_size=128"
    assert batch in line
    assert "trainer.precision=bf16-mixed" in line
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert (status["state"], status["error"]) == ("failed", line)
    assert not (tmp_path / "run/result.json").exists()


def test_a_dataset_that_does_not_fit_into_memory_is_told(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError("Unable to allocate 1.50 GiB for an array")

    monkeypatch.setattr("convolt.data.sources.digits.Digits.write", fail)
    with pytest.raises(RunError, match=r"out of memory on the CPU in preparation: 1\.5 GiB asked for"):
        run(settings(f"data.root={tmp_path / 'data'}"), tmp_path / "run")
    assert not (tmp_path / "data").exists()


LIMITED = """
import re, resource, sys
from pathlib import Path
import torch, torchvision, torch.utils.tensorboard, pytorch_lightning, sklearn.datasets
import convolt.training.run
from convolt.cli.train import main

size = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + {more} * 2**20,) * 2)
sys.argv[0] = "train.py"
sys.exit(main({arguments}))
"""


def limited(tmp_path: Path, more: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with so many further MiB of address space."""
    code = LIMITED.format(more=more, arguments=[*arguments, "trainer.threads=1"])
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_a_process_that_may_take_no_more_memory_says_what_would_fit(settings: Any, tmp_path: Path) -> None:
    options = ["model=resnet18", "data.batch_size=1024", "trainer.precision=32-true", "hydra.run.dir=run"]
    done = limited(tmp_path, 500, *options)
    assert done.returncode == 1, done.stderr
    line, folder = done.stderr.splitlines()
    assert line.startswith("failed: out of memory on the CPU in training: ")
    assert "asked for" in line
    assert "data.batch_size=512 trainer.accumulate_grad_batches=2" in line
    assert Path(folder).name == "run"
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "failed"


def test_the_largest_batch_fits_and_is_found_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3),
        torch.nn.BatchNorm2d(8),
        torch.nn.Dropout(),
        torch.nn.Flatten(),
        torch.nn.Linear(288, 4),
    )
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.get_rng_state()

    def find(hand: int, most: int = 1000) -> int:
        monkeypatch.setattr("convolt.training.batch_size.available_bytes", lambda device: hand)
        device = torch.device("cpu")
        return find_batch_size(network, torch.optim.Adam, (1, 8, 8), 4, device, "32-true", most=most)

    assert find(2**40) == 512  # the largest power of two of 1,000 images
    few, more = find(200_000), find(800_000)
    assert 2 <= few < more < 512
    assert more == 4 * few
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    with pytest.raises(UserError, match="not even two images fit"):
        find(2**40, most=1)


def test_a_batch_that_a_device_refuses_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy(torch.nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if len(images) > 20:
                raise torch.OutOfMemoryError(CUDA)
            return super().forward(images.flatten(1))

    device = torch.device("cpu")
    assert find_batch_size(Greedy(4, 3), torch.optim.SGD, (1, 2, 2), 3, device, "bf16-mixed", most=99) == 16


def test_a_found_batch_is_recorded_and_kept_by_a_continuation(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter((64, 32))
    monkeypatch.setattr("convolt.training.build.find_batch_size", lambda *_, **__: next(found))
    cfg = settings("trainer.find_batch_size=true", "trainer.max_epochs=3")
    whole = run(cfg, tmp_path / "whole")
    assert whole["batch_size"] == 64
    test = ClassificationTask.on_test_epoch_end
    monkeypatch.setattr(ClassificationTask, "on_test_epoch_end", lambda self: 1 / 0)
    found = iter((64, 32))
    with pytest.raises(ZeroDivisionError):
        run(cfg, tmp_path / "run")
    monkeypatch.setattr(ClassificationTask, "on_test_epoch_end", test)
    again = run(cfg, tmp_path / "run")
    assert again["batch_size"] == 64  # and not the 32 that would fit now
    assert again["metrics"] == whole["metrics"]


def test_a_batch_is_found_before_a_real_run(train: Any) -> None:
    options = ("data.train_size=300", "trainer.max_epochs=1")
    found = train("trainer.find_batch_size=true", *options, directory="a")
    assert found["batch_size"] == 256
    asked = train("data.batch_size=256", "data.eval_batch_size=256", *options, directory="b")
    assert found["metrics"] == asked["metrics"]


def test_several_devices_have_no_batch_found(settings: Any) -> None:
    with pytest.raises(UserError, match=r"trainer\.find_batch_size=true looks at one device"):
        settings("trainer.find_batch_size=true", "trainer=ddp")
