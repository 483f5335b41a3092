"""The settings that stand in a run's directory."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from convolt.config.check import check
from convolt.errors import UserError


def stored_settings(directory: Path, command: str) -> DictConfig:
    """Read and check the settings of a run.

    Args:
        directory: The run's directory.
        command: What errors call it: `resume` or `rerun`.

    Raises:
        UserError: When there are none, or they are damaged.
    """
    file = directory / ".hydra" / "config.yaml"
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
        raise UserError(f"{file} is damaged ({reason}): restore it, or start the run anew") from error
    return cfg
