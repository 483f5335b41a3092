"""A trained network as files for other programs, in RUN_DIR/export or elsewhere.

  python export.py RUN_DIR                          safetensors and torch_export
  python export.py RUN_DIR --format onnx            needs pip install 'convolt[export]'
  python export.py RUN_DIR --format all --output DIR
  python export.py RUN_DIR --preprocessing          programs that take bytes (N, S, S, C) as files are read

safetensors   the weights, with classes, preprocessing and the network's settings as metadata
torch_export  model.pt2: torch.export.load(file).module()(images), any batch size, without this package
onnx          model.onnx: the same for ONNX Runtime and others

Programs take float images (N, C, H, W), standardized as the metadata says, and give logits (N, classes). Each file is
loaded again and its outputs are compared with the network's before it is kept. Auxiliary heads are left out.
"""

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convolt.errors import UserError, did_you_mean
from convolt.system.arguments import Parser, run_command, typed_path
from convolt.system.files import atomic_write
from convolt.system.imports import fast_imports

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convolt.inference.trained import TrainedRun

FILES = {"safetensors": "model.safetensors", "torch_export": "model.pt2", "onnx": "model.onnx"}
FORMATS = (*FILES, "all")
METADATA = "metadata.json"
TOLERANCE = 1e-4
"""Largest difference of a program's logits, relative to the largest logit."""


def write_safetensors(network: "nn.Module", path: Path, about: dict[str, str]) -> float:
    """Write weights and metadata, check that they are read back unchanged, and return the difference of outputs: 0."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in network.state_dict().items()}
    with atomic_write(path) as beside:
        save_file(tensors, beside, metadata=about)
        found = load_file(beside)
        if found.keys() != tensors.keys() or not all(torch.equal(found[name], each) for name, each in tensors.items()):
            raise RuntimeError(f"{path.name} is not what was written")
    return 0.0


def metadata(run: "TrainedRun") -> dict[str, str]:
    """Return what must be known to use the weights, each entry JSON or plain text."""
    from dataclasses import asdict

    from omegaconf import OmegaConf

    return {
        "format": "pt",
        "classes": json.dumps(run.input_spec.classes, ensure_ascii=False),
        "preprocessing": json.dumps(asdict(run.input_spec) | {"classes": None}),
        "model": json.dumps(OmegaConf.to_container(run.completed_settings().cfg.model, resolve=True)),
        "metrics": json.dumps(run.result["metrics"]),
        "config_hash": str(run.result["config_hash"]),
        "git_commit": str(run.result["git_commit"]),
    }


def write_torch_export(network: "nn.Module", examples: Sequence["Tensor"], path: Path, about: dict[str, str]) -> float:
    """Write a program of torch.export with any batch size.

    Args:
        network: In evaluation, on the CPU.
        examples: Two inputs of other batch sizes; the first is traced, both are compared.
        path: Ends with .pt2.
        about: Becomes the file's extra file metadata.json.

    Returns:
        The largest difference of its outputs from the network's, relative to the largest of these.
    """
    import torch

    batch = torch.export.Dim("batch", min=1, max=2**16)
    program = torch.export.export(network, (examples[0],), dynamic_shapes=({0: batch},))
    with atomic_write(path) as beside, beside.open("wb") as file:
        torch.export.save(program, file, extra_files={METADATA: json.dumps(about)})
        file.flush()
        with beside.open("rb") as written:
            loaded = torch.export.load(written).module()
        return _largest_difference(network, loaded, examples, path)


def write_onnx(network: "nn.Module", examples: Sequence["Tensor"], path: Path, about: dict[str, str]) -> float:
    """Write a program of ONNX with any batch size.

    Args:
        network: In evaluation, on the CPU.
        examples: Two inputs of other batch sizes; the first is traced, both are compared.
        path: The file.
        about: Becomes the file's metadata.

    Returns:
        The largest difference of its outputs from the network's, relative to the largest of these.
    """
    import onnxruntime
    import torch

    batch = torch.export.Dim("batch", min=1, max=2**16)
    program = torch.onnx.export(
        network,
        (examples[0],),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(about)
    with atomic_write(path) as beside:
        program.save(str(beside), external_data=False)
        session = onnxruntime.InferenceSession(str(beside), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return _largest_difference(
            network, lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0]), examples, path
        )


def _largest_difference(
    network: "nn.Module", program: Callable[..., Any], examples: Sequence["Tensor"], path: Path
) -> float:
    import torch

    largest = 0.0
    with torch.no_grad():
        for images in examples:
            expected, found = network(images), program(images)
            largest = max(largest, float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-6)))
    if not largest <= TOLERANCE:
        raise RuntimeError(
            f"{path.name}: its outputs differ from the network's by {largest:.2g} of the largest; not kept"
        )
    return largest


def remove_unused_modules(network: "nn.Module", images: "Tensor") -> list[str]:
    """Remove from a network what its evaluation does not use, such as auxiliary heads.

    Args:
        network: In evaluation.
        images: (B, C, H, W), an example.

    Returns:
        Names of what was removed; an `nn.Identity` stands in its place.
    """
    import torch
    from torch import nn

    names = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    with torch.enable_grad():
        total = network(images).sum()
        gradients = torch.autograd.grad(total, list(names.values()), allow_unused=True)
    unused = {name for name, gradient in zip(names, gradients, strict=True) if gradient is None}
    removed: list[str] = []
    for name, module in list(network.named_modules()):
        own = {f"{name}.{inner}" for inner, _ in module.named_parameters()}
        inside = any(name.startswith(f"{other}.") for other in removed)
        if name and own and not inside and own <= unused:
            parent, _, child = name.rpartition(".")
            holder = network.get_submodule(parent)
            if isinstance(holder, nn.ModuleDict):
                del holder[child]
            else:
                setattr(holder, child, nn.ModuleDict() if isinstance(module, nn.ModuleDict) else nn.Identity())
            removed.append(name)
    return removed


def with_preprocessing(run: "TrainedRun", network: "nn.Module") -> "nn.Module":
    """Return a network that takes bytes (B, S, S, C) of the stored size, as `read_image` gives them."""
    from torch import Tensor, nn

    preprocessing = run.input_spec.preprocessing()

    class WithPreprocessing(nn.Module):
        """Bytes to logits."""

        mean: Tensor
        std: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.register_buffer("mean", preprocessing.mean)
            self.register_buffer("std", preprocessing.std)

        def forward(self, images: Tensor) -> Tensor:
            unit = preprocessing.pad(images).permute(0, 3, 1, 2).float() / 255
            logits: Tensor = self.network((preprocessing.resize(unit) - self.mean) / self.std)
            return logits

    return WithPreprocessing().eval()


def export(
    run: "TrainedRun", formats: Sequence[str], folder: Path, *, preprocessing: bool = False
) -> dict[Path, float]:
    """Write a run's network.

    Args:
        run: The run.
        formats: Of `FORMATS`, without "all".
        folder: Where to; made where absent.
        preprocessing: Whether programs take bytes.

    Returns:
        Each file with the largest relative difference of its outputs.

    Raises:
        UserError: When the folder cannot be written.
    """
    import torch

    from convolt.system.progress import Progress
    from convolt.tasks.tta import MirrorAveraged

    spec = run.input_spec
    task = run.task()
    network = task.network.to(memory_format=torch.contiguous_format)
    generator = torch.Generator().manual_seed(0)
    shape = (spec.channels, spec.image_size, spec.image_size)
    examples = [torch.randn(size, *shape, generator=generator) for size in (2, 3)]
    remove_unused_modules(network, examples[0])
    evaluated = MirrorAveraged(network).eval() if task.test_time_flip else network
    program, inputs = evaluated, examples
    if preprocessing:
        program = with_preprocessing(run, evaluated)
        shape = (spec.stored_size, spec.stored_size, spec.channels)
        inputs = [torch.randint(0, 256, (size, *shape), dtype=torch.uint8, generator=generator) for size in (2, 3)]
    differences: dict[Path, float] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with Progress("exporting", len(formats)) as progress:
            for kind in formats:
                path = folder / FILES[kind]
                if kind == "safetensors":
                    differences[path] = write_safetensors(network, path, metadata(run))
                else:
                    write = write_torch_export if kind == "torch_export" else write_onnx
                    differences[path] = write(program, inputs, path, metadata(run))
                progress.advance()
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    return differences


def _work(argv: Sequence[str]) -> int:
    parser = Parser("export", __doc__ or "")
    parser.add_argument("--format", default="", metavar="FORMAT", help=f"{', '.join(FORMATS)}; default: the first two")
    parser.add_argument("--output", type=typed_path, metavar="DIR", help="default: RUN_DIR/export")
    parser.add_argument("--preprocessing", action="store_true", help="programs take bytes and standardize themselves")
    arguments = parser.parse(argv)
    wanted = arguments.format
    if wanted and wanted not in FORMATS:
        raise UserError(f"--format {wanted} is not one of {', '.join(FORMATS)}{did_you_mean(wanted, FORMATS)}")
    formats = {"": FORMATS[:2], "all": FORMATS[:3]}.get(wanted, (wanted,))
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if "onnx" in formats and missing:
        raise UserError(f"--format {wanted} needs {', '.join(missing)}: pip install 'convolt[export]'")

    import logging
    import warnings

    with fast_imports():
        from convolt.inference.trained import TrainedRun

    run = TrainedRun(arguments.run)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            folder = arguments.output or arguments.run / "export"
            written = export(run, formats, folder, preprocessing=arguments.preprocessing)
    finally:
        logging.disable(logging.NOTSET)
    for path, difference in written.items():
        exact = "read back, equal" if path.suffix == ".safetensors" else f"outputs differ by {difference:.1g} at most"
        print(f"{path}  {path.stat().st_size / 1e6:,.1f} MB, {exact}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        The exit status: 0, or 2 for a user's mistake.
    """
    return run_command(_work, argv)
