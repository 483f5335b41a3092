"""Write the tables of docs/errors.md: what is typed by mistake, and the line that answers.

python scripts/errors_table.py           write them
python scripts/errors_table.py --check   exit 1 if they are stale
"""

import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from convolt.cli.main import main as main_of_convolt
from convolt.cli.train import main as main_of_train
from convolt.config.compose import compose
from convolt.runs.config_hash import config_hash
from convolt.system.files import write_json

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "errors.md"

MISTAKES = {
    "Options and keys": [
        "model=resnet81", "data=cifar", "optim=adm", "scheduler=cosin", "augmentation=flipp",
        "augmentation=[flip,nope]",
        "batchnorm=behind", "trainer=tpu", "debug=smok", "study=optimisers", "trainer.max_epoch=3",
        "optim.learning_rate=1",
        "data.batchsize=3", "sed=1", "+optim.foo=1", "+data.color=red", "model=null", "optim=[adam,sgd]", "--verbos",
        "optim.lr", "augmentation=[flip,", "'optim.lr=${nope}'", "study=optimizers --cfg job",
        "lr=0.1", "epochs=3", "model.lr=0.1", "+batch_size=8", "gpus=2", "workers=4", "+optim@optim2=sgd", "~model",
        "größe=3", "optim.lr=0.1,0.2", "'optim.lr=${oc.env:CONVOLT_UNSET}'", "--cfg jobs", "model=lenet --cfg",
        "=3", "optim.lr=0.1,", "optim.lr= 0.1", "+model=lenet", "~augmentation", "augmentation={flip:1}",
        "optim.momentum=0.9", "hydra/launcher=loacl", "logger=wanb", "logger.wandb.project=mine",
        "resume=", "hydra.run.dir=''", "study=[optimizers,depth]",
    ],
    "Types and ranges": [
        "optim.lr=abc", "optim.lr=-1", "optim.lr=0", "optim.lr=nan", "optim.lr=null", "optim.weight_decay=-0.1",
        "seed=-1",
        "seed=1.5", "seed=4294967296", "trainer.max_epochs=0", "trainer.max_epochs=2.5", "data.batch_size=0",
        "data.batch_size=many", "data.val_fraction=1", "data.val_fraction=-0.1", "data.train_size=0",
        "data.image_size=-3", "data.label_noise=2", "data.mean=[2]", "data.std=[0]", "model.dropout=1",
        "optim=momentum optim.momentum=1.5", "optim.betas=[0.9]", "trainer.precision=8", "trainer.threads=0",
        "trainer.strategy=fsdp", "trainer.batch_per=gpu", "data.stage=perhaps", "trainer.deterministic=perhaps",
        "trainer.accelerator=quantum", "logger=wandb logger.wandb.mode=ofline",
        "trainer.gradient_clip_val=0", "trainer.chunk=0",
        "trainer.test=first", "trainer.early_stopping.patience=0", "trainer.find_batch_size=1", "force=yes",
        "task.label_smoothing=1", "scheduler=step scheduler.gamma=0", "scheduler.warmup_epochs=-1",
        "augmentation=rotate augmentation.copies=-1", "batchnorm.placement=beside", "batchnorm.eps=0",
    ],
    "What does not go together": [
        "trainer.checkpoint.monitor=val/acuracy", "data.val_fraction=0 scheduler=plateau",
        "data.val_fraction=0 trainer.early_stopping.patience=3", "augmentation=[mixup,cutmix]",
        "trainer.learning_rate_rule=linear", "trainer=ddp trainer.accelerator=cpu trainer.devices=2 data.batch_size=3",
        "trainer=ddp trainer.accelerator=cpu trainer.devices=2 trainer.sync_batchnorm=true",
        "trainer=ddp trainer.find_batch_size=true", "-m trainer=ddp seed=0,1", "-m optim.lr=abc,0.1",
        "study=optimizers optim=adam", "resume=somewhere optim.lr=1", "rerun=somewhere seed=1",
        "data=shapes", "model=fcn8s", "data=shapes model=torchvision", "data=shapes model=fcn8s augmentation=mixup",
        "data=shapes model=fcn8s data.label_noise=0.1", "data=shapes model=fcn8s data.classes=[disk]",
        "data=shapes model=fcn8s trainer.checkpoint.monitor=val/f1", "trainer.checkpoint.monitor=val/mean_iou",
        "data=shapes model=fcn8s 'task.class_weights=[1,2]'", "data=shapes model=fcn8s task.loss=dise",
        "+callbacks.swa._target_=pytorch_lightning.callbacks.StochasticWeightAveraging +callbacks.swa.swa_lrs=0.1",
        "resume=finished trainer.max_epochs=40", "resume=finished trainer.max_epochs=10",
        "resume=finished trainer.max_epochs=many", "resume=finished data.path=elsewhere",
        "-m hydra.run.dir=here seed=0,1", "hydra.sweep.dir=here", "-m 'seed=range(0)'", "hydra.sweeper.dry_run=true",
    ],
    "Data and files": [
        "data.classes=[cat]", "data.train_size=100000", "data.mean=[0.5,0.5]", "data=folder data.path=nowhere",
        "data=folder data.path=notes.txt", "data=folder data.path=empty", "data=arrays data.path=nowhere.npz",
        "data=arrays data.path=notes.txt", "data=arrays data.path=broken.npz", "data=arrays data.path=unequal.npz",
        "data=masks model=fcn8s", "data=masks model=fcn8s data.path=empty",
        "data=shapes model=fcn8s data.num_classes=1", "data=voc2012 model=fcn8s data.resize=squeeze",
        "data.root=notes.txt", "hydra.run.dir=notes.txt/run", "resume=somewhere", "rerun=somewhere", "resume=halfway",
        "data=folder data.path=empty data.white=0",
        "data=folder data.path=uneven", "data=folder data.path=pipes",
        "init_from=somewhere", "init_from=halfway", "init_from=finished",
        "init_from=pruned", "resume=pruned trainer.max_epochs=40", "init_from=diverged",
        "resume=diverged trainer.max_epochs=40", "init_from=bundled", "rerun=bundled",
        "resume=bundled trainer.max_epochs=40", "data.source._target_=own_sources.Names",
    ],
    "Studies and searches": [
        "study=optimizers optim.lr=0.1", "study=optimizers seed=0,1000", "study=depth data.val_fraction=0",
        "study=optimizers seed=0 hydra.sweeper.settle=true", "study=optimizers 'hydra.sweeper.settle={looks: [5, 3]}'",
        "study=optimizers 'hydra.sweeper.settle={metric: test/acuracy}'",
        "study=optimizers hydra.sweeper.settle=true trainer.test=none",
        "study=optimizers 'hydra.sweeper.tune={space: {optim.lr: {low: 1, high: 1}}, trials: 4}'",
        "study=optimizers 'hydra.sweeper.tune={space: {optim.lr: 0.1}, trials: 4}'",
        "study=optimizers 'hydra.sweeper.tune={space: {optim.lr: [0.1, 0.2]}, trails: 4}'",
        "study=optimizers 'hydra.sweeper.tune={space: {optim: [sgd, adam]}, trials: 4}'",
        "study=optimizers 'hydra.sweeper.tune={space: {seed: [1, 2]}, trials: 4}'",
        "study=optimizers hydra.sweeper.tune=x", "study=optimizers hydra.sweeper.trials=4",
        "study=optimizers 'optim.lr=interval(0.1,1)'", "study=optimizers hydra.sweeper.keep=some",
        "study=optimizers hydra.sweeper.rows=[sdg]", "study=optimizers seed=0 hydra.sweeper.max_hours=1",
        "study=optimizers hydra.sweeper.max_hours=0", "study=optimizers hydra.sweeper.have=nowhere.zip",
        "study=optimizers hydra.sweeper.have=broken.npz", "study=optimizers hydra.sweeper.have=finished",
        "-m seed=0,1 hydra.sweeper.have=study.zip", "study=optimizers hydra.sweeper.candidates=true",
        "study=chhipani2021_resnet_cifar10 hydra.sweeper.candidates=true seed=1",
        "study=chhipani2021_resnet_cifar10 hydra.sweeper.candidates=true data.image_size=48",
        "study=chhipani2021_resnet_cifar10 hydra.sweeper.candidates=true data=mnist",
        "study=chhipani2021_resnet_cifar10 hydra.sweeper.candidates=true data.batch_size=32,64",
        "study=chhipani2021_resnet_cifar10 hydra.sweeper.candidates=true hydra.sweeper.max_hours=8",
        "study=chhipani2021_resnet_cifar10 hydra.sweeper.candidates=true "
        "'hydra.sweeper.tune={space: {optim.weight_decay: [0, 0.1]}, trials: 4}'",
        "-m seed=0,1 hydra.sweeper.candidates=true",
        "-m 'optim.lr=interval(0.1,1)'", "-m optim.lr=0.1,1 hydra.sweeper.trials=4",
        "-m 'optim.lr=interval(1,0.1)' hydra.sweeper.trials=4", "-m 'optim.lr=interval(0.1,1)' hydra.sweeper.trials=0",
        "-m 'optim.lr=interval(0.1,1)' hydra.sweeper.trials=4 data.val_fraction=0",
        "-m 'optim.lr=interval(0.1,1)' hydra.sweeper.trials=4 seed=0,0", "-m seed=0,1 hydra.sweeper.settle=true",
    ],
    "Networks and devices": [
        "model=vgg16 data.image_size=8", "model.activation=rellu", "model.init=xavierr",
        "data.labels=coarse", "data.superclasses=[fish]", "data=shapes model=fcn8s model.pretrained=nowhere.pth",
        "data=shapes model=fcn8s model.stride=4", "data=shapes model=fcn8s model.upsampling=nearest",
        "data=shapes model=fcn8s model.pretrained=true batchnorm=after",
        "trainer=cpu trainer.devices=[0]", "trainer.devices=-1", "-m seed=0,1 hydra.launcher.jobs_per_gpu=autoo",
        "-m seed=0,1 hydra.launcher.jobs_per_gpu=0", "-m seed=0,1 hydra.launcher.mps=ture",
        "model._target_=torchvision.models.resnet81", "model._target_=nets.Mine", "model._target_=torch.optim.Adam",
        "optim._target_=torch.optim.Adamm", "optim._partial_=false", "+callbacks.mine._target_=torch.nn.Identity",
        "augmentation=flip augmentation.transforms.flip._target_=torch.nn.Identity",
        "task._target_=torch.nn.Identity",
    ],
    "The command `convolt`": [
        "convolt trian", "convolt model=lenet", "convolt resume finished", "convolt --verson",
        "convolt study data=mnist", "convolt study optimisers", "convolt train model=resnet81", "convolt report otputs",
        "convolt evaluate nowhere", "convolt init taken",
    ],
}  # fmt: skip
"""Arguments by theme, those of the command `convolt` with the word itself; they are typed in a `mistaken_folder`."""

OWN_SOURCE = """
class Names:
    name = "names"

    def write(self, folder, downloads):
        return ["cat", "dog"]
"""


@contextmanager
def mistaken_folder() -> Iterator[Path]:
    """Work in a folder with files of which each has something wrong."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "notes.txt").write_text("no images\n")
        (folder / "broken.npz").write_bytes(b"PK\x03\x04 half of an archive")
        images, labels = np.zeros((6, 8, 8, 1), np.uint8), np.arange(5)
        np.savez(folder / "unequal.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        (folder / "own_sources.py").write_text(OWN_SOURCE)
        (folder / "empty").mkdir()
        (folder / "taken").mkdir()
        (folder / "taken/README.md").write_text("My experiments\n")
        for of_class, count in {"train/cat": 2, "train/dog": 2, "val/cat": 2, "val/dog": 0}.items():
            _write_images(folder / "uneven" / of_class, count)
        for of_class in ("cat", "dog"):
            _write_images(folder / "pipes" / of_class, 2)
        os.mkfifo(folder / "pipes/dog/2.png")
        (folder / "halfway/.hydra").mkdir(parents=True)
        (folder / "halfway/.hydra/config.yaml").write_text("seed: [0\n")
        _finished(folder / "finished")
        _finished(folder / "pruned")
        (folder / "pruned/checkpoints/index.json").unlink()
        (folder / "pruned/checkpoints").rmdir()
        write_json(folder / "pruned/status.json", {"state": "finished", "keep": "none"})
        _finished(folder / "bundled")
        (folder / "bundled/checkpoints/index.json").unlink()
        write_json(folder / "bundled/status.json", {"state": "finished", "bundled": True})
        _finished(folder / "diverged", diverged=True, checkpoint=None)
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def _write_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        (folder / f"{index}.ppm").write_bytes(b"P6 1 1 255 abc")


def _finished(folder: Path, **more: Any) -> None:
    """Write of a finished run of 20 epochs what tells how it can go on; its checkpoints are missing."""
    cfg = compose(["trainer.max_epochs=20"])
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / ".hydra/config.yaml").write_text(OmegaConf.to_yaml(cfg))
    write_json(folder / "checkpoints/index.json", {"epoch-0020.ckpt": {"epochs": 20}})
    result = {"metrics": {}, "checkpoint": "best", "epochs": 20, "config_hash": config_hash(cfg)}
    write_json(folder / "result.json", result | more)


def answer(arguments: str) -> tuple[object, str]:
    """Type `python train.py ARGUMENTS` into this process, or what begins with `convolt`.

    Returns:
        The exit status and what was written to the standard error, with the working directory left out.
    """
    errors, status, before = io.StringIO(), 0, sys.argv
    words = shlex.split(arguments)
    main = main_of_convolt if words[:1] == ["convolt"] else main_of_train
    sys.argv = words if words[:1] == ["convolt"] else ["train.py", *words]
    try:
        with redirect_stderr(errors), redirect_stdout(io.StringIO()):
            status = main()
    except SystemExit as end:
        status = end.code  # type: ignore[assignment]
    finally:
        sys.argv = before
    return status, errors.getvalue().replace(f"{Path.cwd()}/", "").strip()


def tables() -> str:
    """Try every mistake, and render what came of it."""
    lines = []
    with mistaken_folder():
        for theme, mistakes in MISTAKES.items():
            lines += [f"### {theme}", "", "| you type | you see |", "|---|---|"]
            for arguments in mistakes:
                status, line = answer(arguments)
                if status != 2 or len(line.splitlines()) != 1:
                    raise SystemExit(f"{arguments}: status {status}: {line}")
                lines.append(f"| `{arguments}` | {cell(line)} |")
            lines.append("")
    return "\n".join(lines)


def cell(line: str) -> str:
    """Write an error line as a table's cell."""
    return "`" + line.removeprefix("error: ").replace("|", "\\|").replace("`", "'") + "`"


def main() -> int:
    """Write or check the page."""
    text = PAGE.read_text()
    made = re.sub(r"(?<=<!-- made -->\n).*(?=<!-- end -->)", lambda _: tables(), text, flags=re.DOTALL)
    if "--check" in sys.argv:
        print("docs/errors.md is stale: python scripts/errors_table.py" if made != text else "docs/errors.md holds")
        return int(made != text)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
