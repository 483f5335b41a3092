"""The steps of `gpu.py check`: what must hold on a GPU, tried from the command line."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_data import cifar10
from gpu_step import KEPT_LINES, ROOT, LeftOutError, Place, Step, command, epochs_of, expect, result_of, tail

DETERMINISTIC: dict[str, list[str]] = {
    "resnet9": ["model=resnet9"],
    "vgg16": ["model=vgg16", "model.head=imagenet", "data.image_size=256", "data.train_size=512"],
    "alexnet": ["model=alexnet", "model.head=imagenet", "data.image_size=224"],
    "fcn8s": ["data=shapes", "model=fcn8s", "data.train_images=128", "data.test_images=32"],
}
"""Networks with a layer, or a loss, whose usual kernel on a GPU does not repeat its bits."""

CLIPPED = ["optim=momentum", "optim.lr=0.01", "trainer.gradient_clip_val=1"]
KILLED = ["optim=momentum", "augmentation=crop_flip", "trainer.deterministic=true"]
KILLED_NETWORK = ["model=resnet9", "trainer.max_epochs=12"]
COMPILED = ["model=lenet", "optim=sgd", "optim.lr=0.1", "data.train_size=4096", "data.batch_size=64",
            "trainer.precision=32-true", "trainer.tf32=false", "trainer.max_epochs=2"]  # fmt: skip
BATCH_SIZE = ["model=resnet18", "data.image_size=128", "trainer.find_batch_size=true", "trainer.max_epochs=1"]


def gpu_tests(place: Place) -> dict[str, Any]:
    """Run the tests that need a GPU."""
    line = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "tests/training/test_gpu.py"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    counts = {what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    expect(done.returncode == 0 and counts.get("passed", 0) > 0, tail(done.stdout + done.stderr, KEPT_LINES))
    return counts


def evaluated_and_predicted(place: Place, *overrides: str) -> dict[str, Any]:
    """Train, and see what evaluate.py and predict.py say: the run's bits with trainer.deterministic=true.

    Else cuDNN may choose another algorithm in another process, and what differs is a figure and no failure.
    """
    result = place.train("run", "trainer.max_epochs=2", *overrides)
    return figures(result) | used_again(place, place.folder / "run", repeats="trainer.deterministic=true" in overrides)


def used_again(place: Place, run: Path, *, repeats: bool) -> dict[str, Any]:
    """Evaluate a run and predict its test images; where bits repeat, they must be the run's own."""
    evaluated = equals_the_run(place, run)
    predicted = differing_predictions(place, run)
    if repeats:
        expect(evaluated == "equal", evaluated)
        expect(predicted == 0, f"predict.py differs from the run's own probabilities in {predicted} images")
    return {"evaluate": evaluated, "predict": predicted}


def equals_the_run(place: Place, run: Path) -> str:
    """Evaluate a run; return "equal", or what differs."""
    said = command("evaluate.py", str(run), *place.hardware[1:])
    return "equal" if "bit for bit" in said else tail(said.partition("differs from the run")[2] or said)


def differing_predictions(place: Place, run: Path) -> int:
    """Give predict.py the run's test images as files; return in how many a probability is another one."""
    import numpy as np
    from PIL import Image

    images = place.folder / "images"
    images.mkdir()
    for number, image in enumerate(np.load(place.images / "x_test.npy")):
        Image.fromarray(image).save(images / f"{number:04}.png")
    answers = json.loads(command("predict.py", str(run), str(images), "--json", "--top", "10"))
    with np.load(run / "predictions.npz") as kept:
        probabilities = kept["probabilities"][np.argsort(kept["indices"])]
    expect(len(answers["predictions"]) == len(probabilities), "predict.py left images out")
    differing = 0
    for entry in answers["predictions"]:
        row = probabilities[int(Path(entry["file"]).stem)]
        found = {each["class"]: np.float32(each["probability"]) for each in entry["top"]}
        differing += any(found[name] != row[k] for k, name in enumerate(answers["classes"]))
    return differing


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Return what is worth keeping of a run's result."""
    names = ("device", "precision", "compiled", "batch_size", "images_per_second", "peak_memory_bytes", "seconds")
    return {name: result[name] for name in names} | {"test/accuracy": result["metrics"].get("test/accuracy")}


def clip_bf16_mixed(place: Place) -> dict[str, Any]:
    """Gradients are clipped beside a fused optimizer."""
    return evaluated_and_predicted(place, *CLIPPED, "trainer.precision=bf16-mixed")


def clip_16_mixed(place: Place) -> dict[str, Any]:
    """Likewise under a scaler of gradients."""
    return evaluated_and_predicted(place, *CLIPPED, "trainer.precision=16-mixed")


def bf16_true(place: Place) -> dict[str, Any]:
    """Weights in half precision, whose norm is clipped."""
    return evaluated_and_predicted(place, *CLIPPED, "trainer.precision=bf16-true", "trainer.deterministic=true")


def tf32(place: Place) -> dict[str, Any]:
    """Products of rounded factors in float32."""
    return evaluated_and_predicted(place, "model=resnet18", "trainer.precision=32-true", "trainer.deterministic=true")


def peak_memory(place: Place) -> dict[str, Any]:
    """The peak is the GPU's: more than weights, gradients and momentum, less than the card, not the host's."""
    import torch

    result = place.train("run", "model=resnet18", "optim=momentum", "trainer.max_epochs=1")
    host = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    peak, least = result["peak_memory_bytes"], 3 * 4 * result["parameters"]
    card = torch.cuda.get_device_properties(0).total_memory
    expect(least < peak < card, f"peak_memory_bytes={peak}, not between {least} and the card's {card}")
    expect(abs(peak - host) > 0.01 * host, f"peak_memory_bytes={peak} is the host's peak {host}")
    return figures(result) | {"host_peak_bytes": host, "card_bytes": card}


def deterministic(name: str) -> Any:
    """Make the step that trains a network by kernels that repeat their bits."""

    def work(place: Place) -> dict[str, Any]:
        images = place.on_images
        if name == "fcn8s":
            images = [option for option in images if not option.startswith(("data=", "data.path="))]
        options = ["trainer.deterministic=true", "optim=momentum", "optim.lr=0.01", "trainer.max_epochs=1"]
        run = place.folder / "run"
        command("train.py", *images, f"hydra.run.dir={run}", *DETERMINISTIC[name], *options)
        evaluated = equals_the_run(place, run)
        expect(evaluated == "equal", evaluated)
        return figures(result_of(run)) | {"evaluate": evaluated}

    return work


def compiled(place: Place) -> dict[str, Any]:
    """Compiled steps train as others do: replayed as CUDA graphs, and where gradients are added up, without."""
    found: dict[str, Any] = {}
    for batches in (1, 2):
        options = [*COMPILED, f"trainer.accumulate_grad_batches={batches}"]
        plain, fast = (
            place.train(f"{batches}-{on}", *options, f"trainer.compile={on}".lower()) for on in (False, True)
        )
        losses = [result["metrics"]["train/loss"] for result in (plain, fast)]
        expect(fast["compiled"], "the run was not compiled")
        expect(abs(losses[1] / losses[0] - 1) < 0.01, f"train/loss {losses[1]} compiled, {losses[0]} as it is")
        found[f"batches_{batches}"] = figures(fast) | {"train/loss": losses}
    return found


def find_batch_size(place: Place) -> dict[str, Any]:
    """The search ends at the images or where the memory does, and the run goes on."""
    result = place.train("run", *BATCH_SIZE)
    size = result["batch_size"]
    expect(size >= 64 and size & (size - 1) == 0, f"batch_size={size} is no power of two from 64 on")
    return figures(result)


def uuid(place: Place) -> dict[str, Any]:
    """A GPU is named by its UUID, to a run and to a sweep."""
    import torch

    visible = {"CUDA_VISIBLE_DEVICES": f"GPU-{torch.cuda.get_device_properties(0).uuid}"}
    result = place.train("run", "trainer.max_epochs=1", env=visible)
    swept, _ = place.sweep("sweep", 2, "trainer.max_epochs=1", slots=2, env=visible)
    return figures(result) | {"sweep": len(swept), **visible}


def killed_and_resumed(place: Place) -> dict[str, Any]:
    """A run that is killed goes on to the bits of one that is not, and is evaluated and predicts by them."""
    import torch

    more = [*KILLED, *(["data.batch_size=16", "trainer.max_epochs=5"] if place.small else KILLED_NETWORK)]
    whole, cut = place.folder / "whole", place.folder / "cut"
    straight = place.train("whole", *more)
    line = [sys.executable, str(ROOT / "train.py"), *place.on_images, f"hydra.run.dir={cut}", *more]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not ((cut / "metrics.csv").is_file() and len(epochs_of(cut)) >= 2):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    done = len(epochs_of(cut))
    expect(not (cut / "result.json").is_file(), "the run had finished before it was killed")
    said = command("train.py", f"resume={cut}")
    expect("resumes after epoch" in said, tail(said))
    clocks = ("images_per_second", "seconds")
    rows = [[{k: v for k, v in row.items() if k not in clocks} for row in epochs_of(run)] for run in (whole, cut)]
    expect(rows[0] == rows[1], f"metrics.csv differs: {rows[1][-1]} instead of {rows[0][-1]}")
    expect(result_of(cut)["metrics"] == straight["metrics"], "result.json differs")
    last = max((whole / "checkpoints").glob("epoch-*.ckpt")).name
    kept = [torch.load(run / "checkpoints" / last, map_location="cpu", weights_only=True) for run in (whole, cut)]
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        expect(equal(kept[0][part], kept[1][part]), f"{part} of {last} differs")
    again = used_again(place, cut, repeats=True)
    return figures(straight) | {"epochs": len(rows[0]), "epochs_when_killed": done} | again


def equal(one: Any, other: Any) -> bool:
    """Tell whether two nested containers hold equal bits."""
    import torch

    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def sweep(place: Place) -> dict[str, Any]:
    """Four runs share the GPU."""
    results, _ = place.sweep("sweep", 4, "trainer.max_epochs=1", slots=4)
    expect({result["seed"] for result in results} == set(range(4)), "seeds are missing")
    expect({result["slots"] for result in results} == {4}, "the runs did not run at once")
    return {"runs": len(results), "devices": sorted({result["device"] for result in results})}


def mig(place: Place) -> dict[str, Any]:
    """A slice of a GPU is named to a run, where the card is sliced."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    except OSError:
        raise LeftOutError("nvidia-smi is missing") from None
    found = re.search(r"MIG-[0-9a-f-]+", listed)
    if not found:
        raise LeftOutError("the card is not sliced (MIG)")
    return figures(place.train("run", "trainer.max_epochs=1", env={"CUDA_VISIBLE_DEVICES": found[0]}))


STEPS = [
    Step("cifar10", cifar10, 60, 15),
    Step("gpu_tests", gpu_tests, 210, 100, needs=("pytest", "sklearn"), cuda=True),
    Step("killed_and_resumed", killed_and_resumed, 180, 60),
    Step("compiled", compiled, 200, 90, cuda=True),
    Step("clip_bf16_mixed", clip_bf16_mixed, 120, 30, cuda=True),
    Step("clip_16_mixed", clip_16_mixed, 90, 30, cuda=True),
    Step("peak_memory", peak_memory, 60, 15, cuda=True),
    *(Step(f"deterministic_{name}", deterministic(name), 120, 25, cuda=True) for name in DETERMINISTIC),
    Step("bf16_true", bf16_true, 90, 30, cuda=True),
    Step("tf32", tf32, 90, 30, cuda=True),
    Step("sweep", sweep, 100, 20, cuda=True),
    Step("uuid", uuid, 80, 30, cuda=True),
    Step("mig", mig, 60, 15, cuda=True),
    Step("find_batch_size", find_batch_size, 100, 25, cuda=True, alone=True),
]
