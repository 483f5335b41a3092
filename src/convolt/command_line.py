"""What stands between the command line and a run: Hydra's grammar, and errors in one line."""

import os
import re
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from convolt.config import check
from convolt.errors import UserError, near
from convolt.files import remove_empty
from convolt.interruption import Interrupted

CONFIG_NAME = "train"


def slug(text: Any) -> str:
    """Turn overrides into a folder's name: no separators, at most 120 characters, different for different texts."""
    name = re.sub(r"[^\w.,=+-]+", "-", str(text)).strip("-") or "default"
    return name if len(name) <= 120 else f"{name[:107]}-{sha256(name.encode()).hexdigest()[:12]}"


def train(conf: Path) -> None:
    """Run what the command line says, and leave with its exit status: 0 only if all has finished.

    Args:
        conf: The folder of the configs.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's exceptions reach us
    OmegaConf.register_new_resolver("slug", slug, replace=True)
    try:
        directory = _argument("resume")
        if directory is not None:
            _resume(Path(directory))
        else:
            _with_hydra(conf)
    except UserError as error:
        _leave(str(error), 2)
    except Interrupted as error:
        _leave(f"interrupted {error}: the same command, or resume=RUN_DIR, goes on after the last whole epoch", error.exit_status)
    except KeyboardInterrupt:
        _leave("interrupted", 130)


def job(cfg: DictConfig) -> None:
    """Check one composed config and run it; Hydra's task function."""
    state = HydraConfig.get()
    run_dir = Path(state.runtime.output_dir)
    try:
        _check(cfg)
        with open_dict(cfg):
            cfg.choices = _choices()
            cfg.overrides = list(state.overrides.task)
        _run(cfg, run_dir)
    except UserError as error:
        remove_empty(run_dir)
        if state.mode == RunMode.RUN:
            _leave(str(error), 2)
        raise


def _run(cfg: DictConfig, run_dir: Path) -> None:
    try:
        import torchvision  # noqa: F401 (fails where it does not fit to torch; later it would fail unexplained)

        from convolt.run import run
        from convolt.tasks.classification import Diverged
    except (ImportError, RuntimeError, AttributeError) as error:
        raise _misfit(error) from error
    try:
        run(cfg, run_dir)
    except Diverged as error:
        if _multirun():
            raise
        _leave(f"failed: {error}\n{run_dir}", 1)


def _misfit(error: Exception) -> Exception:
    """Tell of a torch and a torchvision that do not work together; any other error stays what it is."""
    if "torchvision" not in f"{error}{getattr(error, 'name', '')}":
        return error
    from importlib.metadata import version

    return UserError(
        f"torch {version('torch')} and torchvision {version('torchvision')} do not fit together ({str(error).splitlines()[0]}): "
        "pip install --upgrade torch torchvision"
    )


def _multirun() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _resume(directory: Path) -> None:
    """Go on with a run that was cut off, with the settings in its directory."""
    file = directory / ".hydra" / "config.yaml"
    if not file.is_file():
        raise UserError(f"resume={directory}: there is no run ({file} is missing)")
    if len(sys.argv) > 2:
        raise UserError("resume=RUN_DIR goes on with the settings in the directory and takes no others")
    cfg = OmegaConf.load(file)
    assert isinstance(cfg, DictConfig)
    check(cfg)
    _run(cfg, directory)


def _argument(name: str) -> str | None:
    """Return the value of `name=value` on the command line, which Hydra is not to see."""
    return next((text.split("=", 1)[1] for text in sys.argv[1:] if text.startswith(f"{name}=")), None)


def _with_hydra(conf: Path) -> None:
    try:
        hydra.main(version_base="1.3", config_path=str(conf), config_name=CONFIG_NAME)(job)()
    except UserError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        if _inside_a_run(error):
            raise
        if isinstance(error, OSError):
            raise UserError(f"cannot write to {error.filename} ({error.strerror}): choose another hydra.run.dir") from error
        raise _explained(error, conf) from error


def _inside_a_run(error: BaseException) -> bool:
    """Tell whether an error comes from a run and not from composing its config."""
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code is _run.__code__:
            return True
        trace = trace.tb_next
    return False


def _choices() -> dict[str, str]:
    """Return the option chosen of each group, in the order of the page; several are joined by "+"."""
    state = HydraConfig.get()
    # Hydra does not list the groups that take several options.
    chosen = {"augmentation": "none"} | {k: str(v) for k, v in state.runtime.choices.items() if not k.startswith("hydra/")}
    typed = dict(text.split("=", 1) for text in state.overrides.task if "=" in text)
    chosen["augmentation"] = typed.get("augmentation", "none").strip("[]").replace(" ", "").replace(",", "+") or "none"
    return dict(sorted(chosen.items()))


def _check(cfg: DictConfig) -> None:
    """Check a config against the one that stands there without the user's values."""
    choices = [f"{group}=[{option.replace('+', ',')}]" if "+" in option else f"{group}={option}" for group, option in _choices().items()]
    loader = GlobalHydra.instance().config_loader()
    reference = loader.load_configuration(CONFIG_NAME, overrides=choices, run_mode=RunMode.RUN)
    check(cfg, OmegaConf.masked_copy(reference, [str(key) for key in reference if key != "hydra"]))


def _explained(error: Exception, conf: Path) -> UserError:
    """Say in one line what Hydra says in many, and name what would have been right."""
    text = str(error)
    groups = {path.name: sorted(_options(path)) for path in conf.iterdir() if path.is_dir() and path.name != "hydra"}
    if isinstance(error, MissingConfigException) and (found := re.search(r"Could not (?:find|load) '([^']+)'", text)):
        group, _, option = found[1].partition("/")
        options = groups.get(group, [])
        return UserError(f"{group}={option}: there is no such {group}{near(option, options) or _listed(options)}")
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found[1].lstrip("+")
        keys = [*groups, *_keys(conf)]
        return UserError(f"{key}: there is no such key{near(key, keys) or '; python train.py --cfg job shows all of them'}")
    if found := re.search(r"Error parsing override '([^']*)'", text):
        return UserError(f"'{found[1]}' is no override: write KEY=VALUE, and quote values with special characters")
    if "must be a string or a list" in text:
        empty = [arg for arg in sys.argv[1:] if arg.endswith("=null")]
        return UserError(f"{empty[0] if empty else 'null'}: a group needs one of its options")
    if found := re.search(r"unrecognized arguments: (.*)", text):
        return UserError(f"{found[1]}: there is no such option; see --help")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return UserError("; ".join(lines[:2]) or type(error).__name__)


def _options(group: Path) -> Iterator[str]:
    """Name the options of a group, those in folders too."""
    for path in group.rglob("*.yaml"):
        yield path.relative_to(group).with_suffix("").as_posix()


def _listed(options: list[str]) -> str:
    return f"; there are {', '.join(options)}" if options else ""


def _keys(conf: Path) -> Iterator[str]:
    """Name the keys of the common page and of all options."""

    def walk(node: Any, prefix: str) -> Iterator[str]:
        if isinstance(node, dict):
            for name, inner in node.items():
                key = f"{prefix}.{name}" if prefix else str(name)
                yield key
                yield from walk(inner, key)

    page = OmegaConf.to_container(OmegaConf.load(conf / f"{CONFIG_NAME}.yaml"))
    yield from (key for key in walk(page, "") if not key.startswith(("defaults", "hydra")))
    chosen = dict(arg.split("=", 1) for arg in sys.argv[1:] if "=" in arg)
    for group in (path for path in conf.iterdir() if path.is_dir() and path.name != "hydra"):
        for file in group.rglob("*.yaml"):
            if file.relative_to(group).with_suffix("").as_posix() == chosen.get(group.name, file.stem):
                yield from walk(OmegaConf.to_container(OmegaConf.load(file)), group.name)


def _leave(message: str, status: int) -> None:
    print(f"error: {message}" if status == 2 else message, file=sys.stderr)
    sys.exit(status)

