"""What a run shows before it trains: network, images, optimizer, options and device, a line each."""

from convolt.training.build import Experiment

SPLITS = ("train", "val", "test")


def describe_experiment(experiment: Experiment) -> dict[str, str]:
    """Return the lines by their titles."""
    settings, data, summary, machine = experiment.settings, experiment.data, experiment.summary, experiment.machine
    choice = settings.choice
    sizes = " + ".join(f"{len(data.indices[split]):,} {split}" for split in SPLITS if split in data.indices)
    resizing = data.describe_resizing()
    shape = f"{data.channels}x{data.image_size}x{data.image_size}" + (f" ({resizing})" if resizing else "")
    processes = f", {machine.processes} processes" if machine.processes > 1 else ""
    return {
        "model": f"{choice('model')}  {summary.parameters:,} parameters, {summary.macs / 1e6:,.2f} M multiply-adds",
        "data": f"{data.dataset.name}  {sizes} images, {data.num_classes} classes, {shape}",
        "optim": f"{choice('optim')}  lr {settings.optim.lr:g}, batch {data.batch_size}, {settings.epochs} epochs, "
        f"scheduler {choice('scheduler')}",
        "options": f"augmentation {choice('augmentation')}, batchnorm {choice('batchnorm')}, seed {settings.seed}",
        "device": f"{machine.device_name}, {machine.precision}, {machine.threads} threads{processes}",
    }
