"""The start of a run: imports PyTorch, and explains in one line what cannot work."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from convolt.config.settings import Settings
from convolt.errors import RunError, UserError
from convolt.system.cublas import make_cublas_deterministic
from convolt.system.imports import fast_imports


def start_run(
    cfg: DictConfig, run_dir: Path, batch_size: int | None = None, change: dict[str, Any] | None = None
) -> None:
    """Import torch and run one checked config; what cannot work is explained in a line.

    Args:
        cfg: The settings.
        run_dir: The run's directory.
        batch_size: See `convolt.training.run.run`.
        change: Likewise.
    """
    run = import_run(cfg)
    try:
        run(cfg, run_dir, batch_size, change)
    except RunError as error:
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        print(f"failed: {error}\n{run_dir}", file=sys.stderr)
        sys.exit(1)


def import_run(cfg: DictConfig, *, freeze: bool = True) -> Callable[..., dict[str, Any]]:
    """Import torch, and return `convolt.training.run.run`.

    Args:
        cfg: The settings of the run.
        freeze: See `fast_imports`.

    Raises:
        UserError: When torch and torchvision do not fit together.
    """
    if Settings.of(cfg).trainer.deterministic:
        make_cublas_deterministic()
    try:
        with fast_imports(freeze=freeze):
            import torch.utils.tensorboard  # noqa: F401 (the logger would import it later, and not as fast)
            import torchvision  # noqa: F401 (fails where it does not fit to torch; later it would fail unexplained)

            from convolt.training.run import run
    except (ImportError, RuntimeError, AttributeError, ValueError) as error:
        raise _explain_import_error(error) from error
    return run


def _explain_import_error(error: Exception) -> Exception:
    """Explain a torch and a torchvision that do not fit together; any other error is returned unchanged."""
    if "TORCH_LOGS" in str(error):
        return UserError(f"TORCH_LOGS={os.environ.get('TORCH_LOGS')} in the environment is refused by torch: unset it")
    if "torchvision" not in f"{error}{getattr(error, 'name', '')}":
        return error
    from importlib.metadata import version

    return UserError(
        f"torch {version('torch')} and torchvision {version('torchvision')} do not fit together "
        f"({str(error).splitlines()[0]}): pip install --upgrade torch torchvision"
    )
