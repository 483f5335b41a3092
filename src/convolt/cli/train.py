"""From the command line to a run: Hydra's grammar, and errors in one line."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from traceback import walk_tb
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from convolt.config.compose import complete_config, explain_hydra_error, register_resolvers
from convolt.config.overrides import FOLDERS, NAMES, override_values, quote_for_hydra
from convolt.config.pages import kept_pages
from convolt.config.settings import CONFIG_NAME
from convolt.errors import UserError, did_you_mean, list_options
from convolt.system.arguments import accept_late_help, run_command
from convolt.system.cores import spin_briefly
from convolt.system.environment import check_environment
from convolt.system.files import expand_home, remove_empty
from convolt.system.installation import CONF
from convolt.training.start import start_run

accept_late_help()

_FLAGS = {name: action for action in get_args_parser()._actions for name in action.option_strings}
"""Hydra's; its parser answers others with a page."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for, and return its status: 0 only if all has finished.

    Args:
        argv: Arguments; those of the process by default.

    Raises:
        SystemExit: Likewise, from inside of Hydra.
    """
    if argv is not None:
        sys.argv[1:] = argv  # where Hydra reads them
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's exceptions reach us
    spin_briefly()
    register_resolvers()
    return run_command(_train)


def _train(argv: Sequence[str]) -> int:
    check_environment()
    for text in argv:
        key, _, value = text.partition("=")
        if key in (*FOLDERS, *NAMES) and text != key and not value.strip("'\" "):
            raise UserError(f"{text}: a value is missing; is the variable set that it comes from?")
        if text != text.encode(errors="replace").decode():
            raise UserError(
                f"{text!a} cannot be read as {sys.getfilesystemencoding()}: "
                "set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or rename what it names"
            )
    sys.argv[1:] = _flags_first(argv)
    if (directory := _typed_value("resume")) is not None:
        _resume(Path(str(directory)))
    elif (directory := _typed_value("rerun")) is not None:
        _rerun(Path(str(directory)))
    else:
        _check_study()
        _check_mode()
        _run_hydra()
    return 0


def job(cfg: DictConfig) -> None:
    """Check one composed config and run it; Hydra's task function."""
    state: Any = HydraConfig.get()
    run_dir = Path(state.runtime.output_dir)
    if state.job.chdir:
        os.chdir(state.runtime.cwd)
        print("hydra.job.chdir: the working directory stays, so that paths mean what they say; all goes to", run_dir)
    if str(state.run.dir).startswith("~"):  # of a page: what is typed was expanded before
        remove_empty(run_dir)
        run_dir = Path(expand_home(str(state.run.dir)))
    try:
        if state.mode == RunMode.RUN and (study := state.runtime.choices.get("study")) is not None:
            raise UserError(f"study={study} is many runs: add -m")
        start_run(complete_config(cfg, state), run_dir)
    except UserError as error:
        remove_empty(run_dir)
        if state.mode == RunMode.RUN:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        raise


def _resume(directory: Path) -> None:
    """Resume a run with the settings in its directory and what may be changed of them."""
    from convolt.training.extend import resumed_settings

    cfg, change = resumed_settings(directory, sys.argv[1:])
    start_run(cfg, directory, change=change)


def _rerun(directory: Path) -> None:
    """Run a finished run again; exit status 1 where its numbers are not the same."""
    from convolt.cli.rerun import rerun
    from convolt.training.extend import IMAGE_PLACES, read_changes

    if not rerun(directory, read_changes("rerun=RUN_DIR runs again", sys.argv[1:], IMAGE_PLACES)):
        sys.exit(1)


def _check_study() -> None:
    """A study is many runs; left to Hydra alone, study=X without -m would train the default network."""
    study = _typed_value("study")
    flags = {text.partition("=")[0] for text in sys.argv[1:]}
    if study is None or {"--help", "-h", "--hydra-help", "--info", "-i"} & flags:
        return
    if not isinstance(study, str):
        raise UserError(f"study={study}: one study at a time")
    if {"--cfg", "-c"} & flags:
        raise UserError(
            f"study={study} is many configs: hydra.sweeper.dry_run=true lists their overrides, and --cfg job with one "
            "of these shows one"
        )
    if {"-m", "--multirun"}.isdisjoint(flags):
        sys.argv.insert(1, "--multirun")


def _check_mode() -> None:
    """Refuse what Hydra would ignore: a sweep's folder or dry run in a single run, a run's folder in a sweep."""
    sweeps = not {"-m", "--multirun"}.isdisjoint(sys.argv) or _typed_value("hydra.mode") == "MULTIRUN"
    if not sweeps and _typed_value("hydra.sweeper.dry_run"):
        raise UserError("hydra.sweeper.dry_run lists the runs of a sweep: add -m; --cfg job shows one run's settings")
    unused, used = ("run", "sweep") if sweeps else ("sweep", "run")
    if (typed := _typed_value(f"hydra.{unused}.dir")) is not None and _typed_value(f"hydra.{used}.dir") is None:
        raise UserError(f"hydra.{unused}.dir={typed}: the folder of a {used} is set by hydra.{used}.dir")


def _typed_value(name: str) -> Any:
    """Return the value of `name=value` on the command line, before Hydra sees it; None where there is none."""
    try:
        return override_values([text for text in sys.argv[1:] if not text.startswith("-")]).get(name)
    except HydraException:
        return None  # Hydra says why it cannot be read


def _flags_first(arguments: Sequence[str]) -> list[str]:
    """Put the flags, with their values, before the overrides, since Hydra takes none between them.

    Raises:
        UserError: For a flag that is unknown, or whose value is missing or unknown.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        text = rest.pop(0)
        name, equals, value = text.partition("=")
        if not text.startswith("-"):
            overrides.append(quote_for_hydra(text))
        elif name not in _FLAGS:
            raise UserError(f"{text}: there is no such option{did_you_mean(text, _FLAGS)}; see --help")
        elif _FLAGS[name].nargs == 0:
            flags.append(text)
        else:
            known, default = list(_FLAGS[name].choices or ()), _FLAGS[name].const
            if not equals and default and (not rest or rest[0] not in known):
                value = default
            elif not equals:
                if not rest:
                    raise UserError(f"{name}: its value is missing{list_options(known)}")
                value = rest.pop(0)
            if known and value not in known:
                raise UserError(
                    f"{name} {value}: there is no such value{did_you_mean(value, known) or list_options(known)}"
                )
            flags.append(f"{name}={expand_home(value)}")
    return [*flags, *overrides]


def _run_hydra() -> None:
    try:
        with kept_pages():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=CONFIG_NAME)(job)()
    except (HydraException, OmegaConfBaseException, ValueError, OSError, YAMLError) as error:
        if isinstance(error, UserError) or _is_raised_in_run(error):
            raise
        if isinstance(error, OSError) and not isinstance(error, HydraException) and error.filename:
            raise UserError(
                f"cannot write to {error.filename} ({error.strerror}): choose another hydra.run.dir"
            ) from error
        raise explain_hydra_error(error, CONF, sys.argv[1:]) from error


def _is_raised_in_run(error: BaseException) -> bool:
    """Return whether an error comes from a run, or from what launches runs, and not from composing a config."""
    return any(
        frame.f_code is start_run.__code__ or frame.f_globals.get("__name__", "").startswith("convolt.sweeps")
        for frame, _ in walk_tb(error.__traceback__)
    )
