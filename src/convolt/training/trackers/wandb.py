"""Weights & Biases."""

import atexit
import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

from convolt.config.settings import WandbSettings
from convolt.system.notebook import in_notebook
from convolt.training.trackers.remote import REQUEST_SECONDS, RemoteTracker
from convolt.training.trackers.tracker import SUCCESS

_LONGEST_TAG = 64
"""Characters of a tag or job type that W&B takes."""


class WandbTracker(RemoteTracker):
    """A run of W&B: group is the study, job type and tags its row.

    Args:
        settings: The section `logger.wandb`.
        run: See `RemoteTracker`.
        say: Likewise.
    """

    service = "wandb"

    def __init__(self, settings: WandbSettings, *args: Any) -> None:
        self.settings = settings
        self._run: Any = None
        super().__init__(*args)
        if not self._known.get("closed"):
            self._told.clear()  # what W&B's process had not written when it was killed is lost

    def _prepare(self) -> None:
        for name, value in (("WANDB_ERROR_REPORTING", "false"), ("WANDB_SILENT", "true")):
            os.environ.setdefault(name, value)
        import wandb  # noqa: F401

    def _open(self) -> Logger:
        import wandb

        run, settings = self.run, self.settings
        mode: Any = settings.mode or os.environ.get("WANDB_MODE", "online")
        can_ask = in_notebook() or (sys.stdin is not None and sys.stdin.isatty())
        if mode in ("online", "shared") and can_ask and wandb.run is None:
            with suppress(TypeError):  # earlier versions have no `prompt`
                if not wandb.login(prompt=False):
                    raise RuntimeError("there is no API key: `wandb login`, or logger.wandb.mode=offline")
        wanted = {
            "console": "off",  # the output of a run is in its output.log and on the screen
            "silent": True,
            "init_timeout": REQUEST_SECONDS,
            "finish_timeout": self.patience - 1,
            "x_graphql_timeout_seconds": REQUEST_SECONDS,
        }
        known = {key: value for key, value in wanted.items() if key in wandb.Settings.model_fields}
        new_id = secrets.token_hex(8)  # not drawn from a generator that the run may use
        self._remember(id=self._known.get("id", new_id), closed=False)
        tags = dict.fromkeys(text[:_LONGEST_TAG] for text in (run.group, run.row, run.kind, f"seed={run.seed}") if text)
        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            mode=mode,
            dir=str(run.directory),
            id=self._known["id"],
            resume="allow",
            name=run.name[:128],
            group=run.group[:128] or None,
            job_type=run.row[:_LONGEST_TAG] or None,
            tags=list(tags),
            reinit="create_new",  # beside whatever run the user has open in this process
            settings=wandb.Settings(**known),
        )
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")
        inner = WandbLogger(experiment=self._run)
        inner.log_hyperparams(run.settings | {f"run_{key}": value for key, value in run.facts.items()})
        return inner

    def _send_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        super()._send_metrics(metrics if step is None else {**metrics, "epoch": step}, None)

    def _send_picture(self, tag: str, file: Path, step: int) -> None:
        import wandb

        self._run.log({tag: wandb.Image(str(file)), "epoch": step})

    def _send_result(self, metrics: Mapping[str, float], epoch: int) -> None:
        self._run.summary.update({**metrics, "tested_epoch": epoch})

    def _close(self, outcome: str) -> None:
        self._run.finish(exit_code=0 if outcome == SUCCESS else 1)
        self._remember(closed=True)

    def _abandon(self) -> None:
        atexit.register(_kill_service)


def _kill_service() -> None:
    """Kill W&B's own process, which waits for the server when this one ends; not under a run that the user has open.

    Other runs of this process use it until then.
    """
    with suppress(Exception):  # of wandb's inside, which may change
        import wandb
        from wandb.sdk import wandb_setup

        if wandb.run is None:
            connection: Any = wandb_setup.singleton()._connection
            connection._cleanup()
            connection._proc._process.kill()
