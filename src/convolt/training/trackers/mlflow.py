"""MLflow: a server, or a file of SQLite."""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger

from convolt.config.settings import MlflowSettings, flatten
from convolt.system.locks import make_lock
from convolt.training.trackers.remote import REQUEST_SECONDS, RemoteTracker
from convolt.training.trackers.tracker import FAILED, INTERRUPTED, SUCCESS

_ADDRESS = "MLFLOW_TRACKING_URI"
_SQLITE = "sqlite:///"
_LOCAL_PATIENCE = 60.0
"""A file answers, but the first run makes all its tables, while others may do the same."""

_STATES = {SUCCESS: "FINISHED", FAILED: "FAILED", INTERRUPTED: "KILLED"}
_LONGEST_VALUE = 250
"""Characters of a parameter that Lightning's logger sends."""


class MlflowTracker(RemoteTracker):
    """A run of MLflow: the experiment is the study, row and seed are tags.

    Args:
        settings: The section `logger.mlflow`.
        run: See `RemoteTracker`.
        say: Likewise.
    """

    service = "mlflow"

    def __init__(self, settings: MlflowSettings, *args: Any) -> None:
        self.settings = settings
        self._client: Any = None
        super().__init__(*args)

    def _prepare(self) -> None:
        defaults = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_CONFIGURE_LOGGING": "false",  # its messages go to run.log
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_SECONDS),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        }
        for name, value in defaults.items():
            os.environ.setdefault(name, value)

    def _open(self) -> Logger:
        run = self.run
        uri, artifacts = _absolute(str(self._known.get("uri", self.settings.tracking_uri)))
        lock: AbstractContextManager[object] = nullcontext()
        if uri.startswith(_SQLITE):
            self.patience = _LOCAL_PATIENCE
            file = Path(uri.removeprefix(_SQLITE))
            lock = make_lock(file.with_name(f".{file.name}.lock"))  # two that make its tables at once both fail
        with lock, _kept_environment():
            inner = MLFlowLogger(
                experiment_name=self.settings.experiment or run.group or "convolt",
                run_name=run.name,
                tracking_uri=uri,
                artifact_location=artifacts,
                tags=run.facts,
                run_id=self._known.get("run_id"),
            )
            try:
                self._client = inner.experiment
            except Exception:  # another run of the sweep has made the experiment in this moment
                self._client = inner.experiment
        self._remember(uri=uri, run_id=inner.run_id)
        self._client.update_run(inner.run_id, status="RUNNING")
        self._log_settings(inner)
        return inner

    def _log_settings(self, inner: MLFlowLogger) -> None:
        """Tell all settings as parameters; those that have changed since, which MLflow refuses, as tags."""
        flat = {key: value for key, value in flatten(self.run.settings).items() if not isinstance(value, dict)}
        there = self._client.get_run(inner.run_id).data.params
        inner.log_hyperparams({key: value for key, value in flat.items() if key not in there})
        for key, value in flat.items():
            if key in there and there[key] != str(value)[:_LONGEST_VALUE]:
                self._client.set_tag(inner.run_id, f"resumed.{key}", str(value))

    @property
    def _run_id(self) -> str:
        return str(self._known["run_id"])

    def _send_picture(self, tag: str, file: Path, step: int) -> None:
        self._client.log_artifact(self._run_id, str(file), str(Path(tag).parent))

    def log_text(self, tag: str, markdown: str, step: int) -> None:
        """Tell a text."""
        self._tell(f"text {tag} {step}", lambda: self._client.log_text(self._run_id, markdown, f"{tag}.md"))

    def _send_result(self, metrics: Mapping[str, float], epoch: int) -> None:
        named = {name if name.startswith("test/") else f"chosen/{name}": value for name, value in metrics.items()}
        self._send_metrics(named, epoch)  # those of validation images have a point at this epoch already

    def _close(self, outcome: str) -> None:
        self._client.set_terminated(self._run_id, _STATES[outcome])


@contextmanager
def _kept_environment() -> Iterator[None]:
    """Undo that MLflow puts an address into the environment, where the next run's config would read it."""
    before = os.environ.get(_ADDRESS)
    try:
        yield
    finally:
        os.environ.pop(_ADDRESS, None)
        if before is not None:
            os.environ[_ADDRESS] = before


def _absolute(uri: str) -> tuple[str, str | None]:
    """Return an address with an absolute path, and where the pictures go; None: where the server says.

    A file of SQLite and the folder of pictures beside it are made with the folders above them.
    """
    if not uri.startswith(_SQLITE):
        return uri, None
    file = Path(uri.removeprefix(_SQLITE)).absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    return f"{_SQLITE}{file}", file.with_name(f"{file.stem}-pictures").as_uri()
