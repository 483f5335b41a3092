"""Record the bits of many short runs, to see after a change of the code that every one of them is the same.

    python scripts/compare_bits.py record FOLDER       before the change
    python scripts/compare_bits.py compare FOLDER      after it; exit status 1 where anything differs

Runs cover each task, every option of the small groups, sweeps, a killed run that goes on, a rerun, two processes,
evaluate, predict and export; all on data that is generated or comes with scikit-learn. `record` also leaves a run that
was killed, which `compare` goes on with. Results depend on the processor, so both belong on one machine.
"""

import argparse
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
KEYS = ("metrics", "per_class", "confusion_matrix", "checkpoint", "tested_epoch", "epochs", "parameters", "macs",
        "dataset_hash", "config_hash", "batch_size", "precision")  # fmt: skip
SHORT = ["trainer.threads=1", "trainer.max_epochs=2", "data.train_size=320", "pictures.enabled=false"]
SEGMENTATION = ["data=shapes", "model=fcn8s", "data.image_size=32", "data.train_images=48", "data.test_images=16",
                "data.train_size=null"]  # fmt: skip
CUT = ["trainer.threads=1", "trainer.max_epochs=40", "pictures.enabled=false", "augmentation=[crop,rotate]"]

SWEEPS = {
    "augmentation": ["augmentation=none,flip,shift,crop,rotate,affine,color,cutout,mixup,cutmix,shift_flip,all"],
    "optim": ["optim=sgd,momentum,nesterov,rmsprop,adam,adamw"],
    "scheduler": ["scheduler=constant,step,plateau,cosine,onecycle", "scheduler.warmup_epochs=0.5"],
    "batchnorm": ["model=resnet20", "batchnorm=auto,before,after,none"],
    "model": ["model=lenet,nin,allcnn,mobilenet,resnet20v2,resnet9,preact_resnet18,googlenet_bn,densenet_bc100",
              "data.train_size=128", "trainer.max_epochs=1"],
    "precision": ["trainer.precision=32-true,64-true,bf16-mixed,bf16-true", "trainer.channels_last=true,false"],
    "task": ["task.label_smoothing=0.1", "task.weight_decay_on=weights", "optim.weight_decay=0.01", "seed=0,1",
             "task.test_time_flip=true", "trainer.gradient_clip_val=1", "trainer.accumulate_grad_batches=2"],
    "segmentation": [*SEGMENTATION, "task.loss=cross_entropy,dice,both"],
    "debug": ["debug=smoke,profile"],
}  # fmt: skip
RUNS = {
    "overfit": ["debug=overfit", "debug.epochs=3"],
    "last": ["data.val_fraction=0", "trainer.test=last"],
    "early": ["trainer.early_stopping.patience=1", "trainer.max_epochs=6", "optim.lr=0.05"],
    "noise": ["data.label_noise=0.2", "data.classes=[0,1,5]", "data.train_size=null"],
    "copies": ["augmentation=rotate", "augmentation.copies=1"],
    "ddp": ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "model=resnet20"],
    "pictures": ["pictures.enabled=true", "pictures.every_n_epochs=1"],
    "folder": ["data=folder", "data.path={data}/photos", "data.image_size=32", "data.train_size=null"],
    "arrays": ["data=arrays", "data.path={data}/arrays.npz", "data.train_size=null"],
    "masks": ["data=masks", "model=fcn8s", "data.path={data}/masks", "data.image_size=32", "data.train_size=null"],
}  # fmt: skip


def make_data(folder: Path) -> None:
    """Write small images in folders, as arrays and with masks."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = random.integers(0, 120, (60, 40, 40, 3))
    images[np.arange(60), :, :, labels] += 100
    images = images.astype(np.uint8)
    np.savez(folder / "arrays.npz", x_train=images[:45], y_train=labels[:45], x_test=images[45:], y_test=labels[45:])
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        for path, array in (
            (folder / "photos" / "abc"[label] / f"{place:02d}.png", image),
            (folder / "masks/images" / f"{place:02d}.png", image),
            (folder / "masks/masks" / f"{place:02d}.png", ((image[..., label] > 150) * (label + 1)).astype(np.uint8)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def command(folder: Path, script: str, *arguments: str, status: int = 0) -> str:
    """Run one of the entry points; return what it printed."""
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode != status:
        raise SystemExit(f"{script} {' '.join(arguments)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def kill_in_the_middle(folder: Path, run_dir: Path) -> None:
    """Begin a run, and kill it once two epochs are behind it."""
    arguments = [*CUT, f"data.root={folder}/prepared", f"hydra.run.dir={run_dir}"]
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *arguments], stdout=subprocess.DEVNULL)
    while len(list((run_dir / "checkpoints").glob("epoch-*.ckpt"))) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if (run_dir / "result.json").exists():
        raise SystemExit("the run had ended before it was killed")


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of tensors by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def bits(run_dir: Path) -> dict[str, Any]:
    """Return what must be the same of a finished run."""
    result = json.loads((run_dir / "result.json").read_text())
    checkpoints = sorted((run_dir / "checkpoints").glob("*.ckpt"))
    states = {path.name: torch.load(path, map_location="cpu", weights_only=True)["state_dict"] for path in checkpoints}
    weights = {name: sha256_of(state) for name, state in states.items()}
    rows = [line.split(",") for line in (run_dir / "metrics.csv").read_text().splitlines()]
    timed = [rows[0].index(name) for name in ("seconds", "images_per_second")]
    history = [[cell for place, cell in enumerate(row) if place not in timed] for row in rows]
    with np.load(run_dir / "predictions.npz") as arrays:
        predictions = {name: hashlib.sha256(arrays[name].tobytes()).hexdigest() for name in arrays}
    return {key: result.get(key) for key in KEYS} | {"weights": weights, "history": history, "predictions": predictions}


def collect(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run everything below a folder, and yield the bits of each run."""
    root = f"data.root={folder}/prepared"
    for name, options in SWEEPS.items():
        print(name, flush=True)
        command(folder, "train.py", "-m", *SHORT, *options, root, f"hydra.sweep.dir={folder}/sweeps/{name}")
        for path in sorted((folder / "sweeps" / name).rglob("result.json")):
            yield f"{name}/{path.parent.name}", bits(path.parent)
    for name, options in RUNS.items():
        print(name, flush=True)
        typed = [option.format(data=folder) for option in options]
        command(folder, "train.py", *SHORT, *typed, root, f"hydra.run.dir={folder}/runs/{name}")
        yield name, bits(folder / "runs" / name)
    print("study, resume, rerun, evaluate, predict, export", flush=True)
    command(
        folder, "train.py", "study=optimizers", "hydra.sweeper.tune=null", "model=lenet", "data=digits", *SHORT, root
    )
    for path in sorted((folder / "outputs/studies").rglob("result.json")):
        yield f"study/{path.parent.relative_to(folder / 'outputs/studies')}", bits(path.parent)
    killed = folder / "runs/killed"
    kill_in_the_middle(folder, killed)
    command(folder, "train.py", f"resume={killed}")
    yield "killed", bits(killed)
    if "equal: all" not in command(folder, "train.py", f"rerun={folder}/runs/early"):
        raise SystemExit("the rerun is not equal")
    pictures, photos = folder / "runs/pictures", folder / "runs/folder"
    if "bit for bit" not in command(folder, "evaluate.py", str(pictures)):
        raise SystemExit("evaluate.py finds other numbers")
    command(folder, "evaluate.py", str(pictures), "split=val")
    for path in sorted((pictures / "evaluations").rglob("report.json")):
        report = json.loads(path.read_text())
        yield f"evaluate/{path.parent.name}", {key: value for key, value in report.items() if key != "run"}
    answers = json.loads(command(folder, "predict.py", str(photos), str(folder / "photos"), "--json"))
    yield "predict", {"top": [entry["top"] for entry in answers["predictions"]]}
    command(folder, "export.py", str(photos))
    yield "export", {"sha256": sha256_of(load_file(next(photos.rglob("*.safetensors"))))}


def main() -> int:
    """Record or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "compare"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    stored = arguments.folder.resolve()
    folder = Path(tempfile.gettempdir()).resolve() / "convolt-bits"  # of both: paths are part of a config hash
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        make_data(folder)
        if arguments.what == "record":
            found = json.loads(json.dumps(dict(collect(folder))))
            kill_in_the_middle(folder, folder / "cut")
            for name in ("cut", "prepared"):
                shutil.copytree(folder / name, stored / name, dirs_exist_ok=True)
            (stored / "bits.json").write_text(json.dumps(found, indent=1))
            print(f"{len(found)} runs and uses recorded")
            return 0
        for name in ("cut", "prepared"):
            shutil.copytree(stored / name, folder / name)
        command(folder, "train.py", f"resume={folder}/cut")
        found = json.loads(json.dumps(dict(collect(folder)) | {"killed before": bits(folder / "cut")}))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    before = json.loads((stored / "bits.json").read_text())
    before["killed before"] = before["killed"]
    differing = [name for name in before | found if before.get(name) != found.get(name)]
    for name in differing:
        first, second = before.get(name) or {}, found.get(name) or {}
        print(f"{name}: {', '.join(key for key in first | second if first.get(key) != second.get(key))}")
    print(f"{len(before | found) - len(differing)} of {len(before | found)} runs and uses have the same bits")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
