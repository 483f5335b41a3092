"""The settings that stand in a run's directory, checked."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from convolt.config.check import check
from convolt.errors import UserError
from convolt.runs.config_hash import config_hash
from convolt.runs.files import RunFiles


def stored_settings(directory: Path, command: str) -> DictConfig:
    """Read and check the settings of a run.

    Args:
        directory: The run's directory.
        command: What errors call it: `resume` or `rerun`.

    Raises:
        UserError: When there are none, or they are damaged.
    """
    file = RunFiles(directory).config_file
    if not file.is_file():
        raise UserError(f"{command}={directory}: there is no run ({file} is missing)")
    try:
        cfg = OmegaConf.load(file)
        if not isinstance(cfg, DictConfig):
            raise TypeError("it holds no settings")
        check(cfg)
    except UserError as error:
        raise UserError(f"{file} is damaged: {error}") from None
    except Exception as error:  # YAML, Unicode and OmegaConf raise a dozen kinds over damaged text
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file} is damaged ({reason}): restore it, or start the run again") from error
    return cfg


def stored_hash(directory: Path) -> str | None:
    """Return the hash of the settings that stand in a run's directory; None where they cannot be read."""
    try:
        settings: Any = OmegaConf.load(RunFiles(directory).config_file)
        return config_hash(settings)
    except Exception:  # YAML and OmegaConf raise a dozen kinds over damaged text
        return None
