"""What stands between the command line and a run: Hydra's grammar, and errors in one line."""

import os
import sys
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from convolt.composition import CONFIG_NAME, complete, explained, register_resolvers
from convolt.config import check
from convolt.cores import spin_briefly
from convolt.cublas import repeat_products
from convolt.errors import RunError, UserError, near
from convolt.files import read_json, remove_empty
from convolt.imports import quick
from convolt.interruption import Interrupted
from convolt.stored import stored_settings

_FLAGS = (
    "--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r",
    "--multirun", "-m", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn", "--config-dir",
    "-cd", "--experimental-rerun", "--info", "-i",
)  # fmt: skip
"""Hydra's; its parser answers others with a page."""


def train(conf: Path) -> None:
    """Run what the command line says, and leave with its exit status: 0 only if all has finished.

    Args:
        conf: The folder of the configs.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's exceptions reach us
    spin_briefly()
    register_resolvers()
    # Hydra takes its flag before or behind all overrides, but not between them.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda text: text not in ("-m", "--multirun"))
    try:
        for text in sys.argv[1:]:
            if text.startswith("-") and text.split("=", 1)[0] not in _FLAGS:
                raise UserError(f"{text}: there is no such option{near(text, _FLAGS)}; see --help")
        if (directory := _argument("resume")) is not None:
            _resume(Path(directory))
        elif (directory := _argument("rerun")) is not None:
            _rerun(Path(directory))
        else:
            _see_to_study()
            _with_hydra(conf)
    except UserError as error:
        _leave(str(error), 2)
    except Interrupted as error:
        _leave(
            f"interrupted {error}: the same command, or resume=RUN_DIR, goes on after the last whole epoch",
            error.exit_status,
        )
    except KeyboardInterrupt:
        _leave("interrupted", 130)


def job(cfg: DictConfig) -> None:
    """Check one composed config and run it; Hydra's task function."""
    state: Any = HydraConfig.get()
    run_dir = Path(state.runtime.output_dir)
    try:
        run_explained(complete(cfg, state), run_dir)
    except UserError as error:
        remove_empty(run_dir)
        if state.mode == RunMode.RUN:
            _leave(str(error), 2)
        raise


def run_explained(cfg: DictConfig, run_dir: Path, batch_size: int | None = None) -> None:
    """Import torch and run one checked config; what cannot work is explained in a line.

    Args:
        cfg: The settings.
        run_dir: The run's directory.
        batch_size: See `convolt.run.run`.
    """
    if cfg.trainer.deterministic:
        repeat_products()
    try:
        with quick():
            import torchvision  # noqa: F401 (fails where it does not fit to torch; later it would fail unexplained)

            from convolt.run import run
    except (ImportError, RuntimeError, AttributeError) as error:
        raise _misfit(error) from error
    try:
        run(cfg, run_dir, batch_size)
    except RunError as error:
        if _multirun():
            raise
        _leave(f"failed: {error}\n{run_dir}", 1)


def _misfit(error: Exception) -> Exception:
    """Tell of a torch and a torchvision that do not work together; any other error stays what it is."""
    if "torchvision" not in f"{error}{getattr(error, 'name', '')}":
        return error
    from importlib.metadata import version

    return UserError(
        f"torch {version('torch')} and torchvision {version('torchvision')} do not fit together "
        f"({str(error).splitlines()[0]}): pip install --upgrade torch torchvision"
    )


def _multirun() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _resume(directory: Path) -> None:
    """Go on with a run that was cut off, with the settings in its directory."""
    devices = _argument("trainer.devices")
    _alone("resume=RUN_DIR goes on", *([] if devices is None else ["trainer.devices"]))
    cfg = stored_settings(directory, "resume")
    if devices is not None:  # the only setting that may change under way
        OmegaConf.update(cfg, "trainer.devices", yaml.safe_load(devices))
        check(cfg)
    from convolt.results.record import config_hash

    status = read_json(directory / "status.json")
    if isinstance(status, dict) and status.get("config_hash", config_hash(cfg)) != config_hash(cfg):
        raise UserError(
            f"resume={directory}: .hydra/config.yaml has changed since the run began; restore it, or start another run"
        )
    run_explained(cfg, directory)


def _rerun(directory: Path) -> None:
    """Run a finished run again; exit status 1 where its numbers are not the same."""
    _alone("rerun=RUN_DIR runs again")
    from convolt.rerun import rerun

    if not rerun(directory):
        sys.exit(1)


def _alone(what: str, *taken: str) -> None:
    if len(sys.argv) > 2 + len(taken):
        raise UserError(f"{what} with the settings in the directory and takes no others")


def _see_to_study() -> None:
    """A study is many runs; left to Hydra alone, study=X without -m would train the default network."""
    study = _argument("study")
    if study is None or {"--help", "-h", "--hydra-help", "--info", "-i"} & set(sys.argv):
        return
    if {"--cfg", "-c"} & set(sys.argv):
        raise UserError(
            f"study={study} is many configs: hydra.sweeper.dry_run=true lists their overrides, and --cfg job with one "
            "of these shows one"
        )
    if {"-m", "--multirun"}.isdisjoint(sys.argv):
        sys.argv.insert(1, "--multirun")


def _argument(name: str) -> str | None:
    """Return the value of `name=value` on the command line, which Hydra is not to see."""
    return next((text.split("=", 1)[1] for text in sys.argv[1:] if text.startswith(f"{name}=")), None)


def _with_hydra(conf: Path) -> None:
    try:
        hydra.main(version_base="1.3", config_path=str(conf), config_name=CONFIG_NAME)(job)()
    except UserError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError, OSError, YAMLError) as error:
        if _inside_a_run(error):
            raise
        if isinstance(error, OSError) and not isinstance(error, HydraException):
            raise UserError(
                f"cannot write to {error.filename} ({error.strerror}): choose another hydra.run.dir"
            ) from error
        raise explained(error, conf, sys.argv[1:]) from error


def _inside_a_run(error: BaseException) -> bool:
    """Tell whether an error comes from a run, or from what launches runs, and not from composing a config."""
    trace = error.__traceback__
    while trace:
        frame = trace.tb_frame
        if frame.f_code is run_explained.__code__ or frame.f_globals.get("__name__", "").startswith("convolt.sweeps"):
            return True
        trace = trace.tb_next
    return False


def _leave(message: str, status: int) -> None:
    print(f"error: {message}" if status == 2 else message, file=sys.stderr)
    sys.exit(status)
