"""A sweep's runs, composed and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from convolt.config.compose import complete_config, explain_hydra_error
from convolt.errors import UserError


@dataclass(frozen=True)
class ComposedJob:
    """One run, composed.

    Attributes:
        cfg: Its settings, checked.
        hydra: Hydra's section.
        run_dir: Its directory.
        overrides: What it was composed from.
    """

    cfg: DictConfig
    hydra: DictConfig
    run_dir: Path
    overrides: list[str]


def compose_job(loader: ConfigLoader, master: DictConfig, overrides: Sequence[str], number: int = 0) -> ComposedJob:
    """Compose and check one run of a sweep.

    Args:
        loader: Hydra's.
        master: The sweep's config.
        overrides: The run's own.
        number: Its place in the sweep.

    Raises:
        UserError: When an option or a key does not exist, or a value will not do.
    """
    before = HydraConfig.instance().cfg
    try:
        config = loader.load_sweep_config(master, list(overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        HydraConfig.instance().set_config(config)  # for interpolations of the directory
        directory = Path(str(config.hydra.sweep.dir)).absolute() / str(config.hydra.sweep.subdir)
        cfg = complete_config(config, config.hydra)
    except UserError:
        raise
    except Exception as error:
        raise explain_hydra_error(error, conf_of(master), overrides) from error
    finally:
        HydraConfig.instance().cfg = before
    if cfg.trainer.devices not in (1, "auto") or str(cfg.trainer.strategy).startswith("ddp"):
        raise UserError(
            f"trainer.devices={cfg.trainer.devices}, trainer.strategy={cfg.trainer.strategy}: "
            "a sweep gives each run one device; start runs on several devices one by one"
        )
    typed = OmegaConf.to_container(config.hydra.overrides.task)
    assert isinstance(typed, list)
    return ComposedJob(cfg, config, directory, typed)


def conf_of(config: DictConfig) -> Path:
    """Return the folder that a config was composed from."""
    return next(Path(source.path) for source in config.hydra.runtime.config_sources if source.provider == "main")
