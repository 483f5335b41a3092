"""Train a finished run again in plain PyTorch, and compare every bit of the weights.

    python train.py model=lenet data=mnist augmentation=crop_flip trainer.precision=32-true
    python examples/plain_loop.py RUN_DIR

For those who doubt: nothing of Lightning, Hydra or Convolt's loader, tasks and schedules is used here, only the
definition of the network. Takes runs in float32 on a CPU, of any classifier without auxiliary heads, with images that
are not resized, optim=sgd, momentum, adam or adamw, scheduler=cosine or constant, augmentation=none, flip, crop or
crop_flip, without further options. Ends with status 1 where a bit differs.
"""

import json
import math
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml


def make(options, **more):
    """Make an object of the class that `_target_` names."""
    module, name = options["_target_"].rsplit(".", 1)
    return getattr(import_module(module), name)(**{k: v for k, v in options.items() if k[0] != "_"} | more)


def choose_training_images(labels, fraction, seed):
    """Return the indices of the images that do not validate; of each class, those with the smallest keys do."""
    keys, kept = np.random.default_rng(seed).random(len(labels)), []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        kept.append(members[np.argsort(keys[members], kind="stable")[math.floor(len(members) * fraction + 0.5) :]])
    return np.sort(np.concatenate(kept))


def draw_moves(transforms, seed, epoch, count):
    """Return (count, 2) shifts down and right in pixels, and (count,) flips, of each image whatever the order is."""
    shift, flip = torch.zeros(count, 2, dtype=torch.long), torch.zeros(count, dtype=torch.bool)
    for place, transform in enumerate(transforms):
        random = np.random.default_rng([seed, epoch, 1, place])
        if transform["_target_"].endswith("Crop"):
            drawn = torch.from_numpy(random.uniform(-1, 1, (count, 2)).astype(np.float32))
            shift = ((drawn + 1) / 2 * (2 * transform["padding"] + 1)).floor().long() - transform["padding"]
        else:
            flip = torch.from_numpy(random.random(count) < transform["probability"])
    return shift, flip


def move(images, batch, shift, flip):
    """Return a batch of the images (N, H, W, C), flipped and shifted, with zeros where they came from beyond."""
    side = images.shape[1]
    pixels = torch.arange(side)
    rows = pixels - shift[batch, :1]
    columns = torch.where(flip[batch, None], pixels.flip(0), pixels) - shift[batch, 1:]
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    rows, columns = rows.clamp(0, side - 1)[:, :, None], columns.clamp(0, side - 1)[:, None, :]
    return images[batch[:, None, None], rows, columns] * inside[..., None]


def train(folder):
    """Train as the run in a folder did; return the network."""
    config = yaml.safe_load((folder / ".hydra/config.yaml").read_text())
    result, inputs_as = (json.loads((folder / name).read_text()) for name in ("result.json", "preprocessing.json"))
    data, seed, size = config["data"], config["seed"], config["data"]["batch_size"]
    stored = Path(data["root"]) / inputs_as["dataset"]
    images, labels = (torch.from_numpy(np.load(stored / f"train_{what}.npy")) for what in ("images", "labels"))
    indices = choose_training_images(labels.numpy(), data["val_fraction"], data["split_seed"])
    images, labels = F.pad(images[indices], (0, 0, *(inputs_as["padding"],) * 4)), labels[indices]
    count, side = images.shape[:2]
    mean, std = (torch.tensor(inputs_as[name]) for name in ("mean", "std"))
    scale, offset = 1 / 255 / std, -mean / std

    torch.set_num_threads(result["threads"])
    torch.manual_seed(seed)
    shape = {"in_channels": inputs_as["channels"], "num_classes": len(inputs_as["classes"]), "image_size": side}
    network = make(config["model"], **shape, batchnorm=make(config["batchnorm"])).to(memory_format=torch.channels_last)
    optimizer = make(config["optim"], params=network.parameters())

    starts = range(0, count - (count % size == 1), size)
    for epoch in range(result["epochs"]):
        order = torch.from_numpy(np.random.default_rng([seed, epoch, 0]).permutation(count))
        shift, flip = draw_moves(config["augmentation"]["transforms"].values(), seed, epoch, count)
        torch.manual_seed(int(np.random.default_rng([seed, epoch, 2]).integers(2**63)))  # of dropout
        for step, start in enumerate(starts):
            batch = order[start : start + size]
            moved = move(images, batch, shift, flip)
            inputs = torch.addcmul(offset, moved.float(), scale).permute(0, 3, 1, 2)
            if config["scheduler"]["_target_"].endswith("cosine"):
                done = (epoch + step / len(starts)) / config["trainer"]["max_epochs"]
                optimizer.param_groups[0]["lr"] = config["optim"]["lr"] * ((1 + math.cos(math.pi * done)) / 2)
            loss = F.cross_entropy(network(inputs), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: the last batch's loss is {loss.item():.6f}")
    return network


def main(folder):
    """Compare the weights of the run's last epoch with those of the plain loop; return whether a bit differs."""
    precision = json.loads((folder / "result.json").read_text())["precision"]
    if precision != "32-true":
        sys.exit(
            f"{folder} was trained in {precision}: this loop computes in float32, as trainer.precision=32-true does"
        )
    last = sorted((folder / "checkpoints").glob("epoch-*.ckpt"))[-1]
    stored = torch.load(last, map_location="cpu", weights_only=True)["state_dict"]
    found = {f"network.{name}": value for name, value in train(folder).state_dict().items()}
    equal = [name for name in stored if torch.equal(found[name], stored[name])]
    print(f"{len(equal)} of {len(stored)} tensors of {last} are equal to the bit")
    return len(equal) < len(stored)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
