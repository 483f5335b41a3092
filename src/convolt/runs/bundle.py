"""A bundle: the results of many runs without their weights, in one zip file with the digest of every file in it.

Of each run it holds `result.json`, `metrics.csv`, `.hydra/`, the predicted class of every test image and a short
`status.json`; beside them `study.json`, and in `bundle.json` what there is. The same state gives the same bytes. A file
that is read need not be trusted: nothing in it is used but what is known here by its name.
"""

import hashlib
import io
import json
import re
import stat
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo, is_zipfile

import yaml
from omegaconf import DictConfig, OmegaConf

from convolt import __version__
from convolt.config.settings import flatten
from convolt.errors import UserError
from convolt.runs.files import Json, RunFiles
from convolt.runs.predicted_classes import PREDICTED_CLASSES, pack_predicted_classes, read_predicted_classes
from convolt.system.files import DIGEST, add_digest, atomic_write, is_damaged, read_object, to_json
from convolt.system.installation import command_name
from convolt.system.os_errors import explain_os_error

FORMAT = 1
"""Of bundles that are written here, and the only one that is read."""

MANIFEST = "bundle.json"
STUDY = "study.json"
EARLIER_RESULTS = "report/tables/results.csv"
"""Of the last report in the study's folder: from it the next one knows which seeds were added after looking."""

RUN_FILES = (
    "status.json", ".hydra/config.yaml", ".hydra/overrides.yaml", "metrics.csv", PREDICTED_CLASSES, "result.json",
)  # fmt: skip
"""Of a run, in the order in which they are written where it is laid out: what says that it has finished is the last."""

_MACHINES_KEYS = ("data.root", "data.stage", "logger")
"""Settings (and sections) that belong to a machine and change no number: they do not travel."""

_WITH_PATHS = ("skipped", "notes", "init_from", "changed_settings", "reason")
"""Keys of `result.json` whose texts may name folders of a machine."""

_MOST_INFLATED, _LARGEST = 100, 2**28
"""How many times larger than the zip file its content may be, and the largest file in it, in bytes."""

_FOLDERS = re.compile(
    r"""(?<![\w:/.\\])              # what is relative, or the address of a page, stays
        (?:[A-Za-z]:(?=\\)|~(?=/))?
        (?:[\\/][^\\/\s'":;,()]*)*[\\/]
        (?=[^\\/\s'":;,()])""",
    re.VERBOSE,
)
"""The folders of an absolute path."""

_UNREADABLE = (
    BadZipFile, OSError, zlib.error, struct.error, EOFError, ValueError, KeyError, TypeError, AttributeError,
    NotImplementedError, RuntimeError, OverflowError,
)  # fmt: skip
"""What damaged zip files and manifests raise."""

Packed = Mapping[str, bytes]
"""The files of a run, by their names in its directory."""


@dataclass(frozen=True)
class Bundle:
    """The content of a bundle.

    Attributes:
        kind: study, search, sweep or runs.
        folder: What the folder is called, with the one above it where that tells something.
        runs: The files of each run, by its directory relative to the folder; "" for a single run.
        shared: Files of the folder itself.
    """

    kind: str
    folder: str
    runs: Mapping[str, Packed]
    shared: Packed = field(default_factory=dict)

    @cached_property
    def study(self) -> Json | None:
        """The content of `study.json`; None where it is no study's."""
        return json.loads(self.shared[STUDY]) if STUDY in self.shared else None

    def files(self) -> dict[str, bytes]:
        """Return the content of all files, by path relative to the folder."""
        runs = self.runs.items()
        return dict(self.shared) | {_join(place, name): data for place, run in runs for name, data in run.items()}


def list_paths(run: Packed) -> list[str]:
    """Return the settings of a run that are paths of a machine and have to stay, since the config hash covers them."""
    content = yaml.load(run.get(".hydra/config.yaml", b""), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    values = flatten(content if isinstance(content, dict) else {}).items()
    return [f"{key}={value}" for key, value in values if re.match(r"[/~]|[A-Za-z]:\\", str(value))]


def read_packed_result(run: Packed) -> Json:
    """Return the result of a run in a bundle; empty where it has not finished."""
    return json.loads(run["result.json"]) if "result.json" in run else {}


def pack_run(path: Path, state: str, reason: str) -> dict[str, bytes]:
    """Return what a bundle keeps of a run.

    Args:
        path: Its directory.
        state: As a report names it; of runs that have not finished little else is kept.
        reason: Why it has not finished.

    Raises:
        ValueError: A file that is needed is damaged.
    """
    files = RunFiles(path)
    status, packed = files.status(), dict[str, bytes]()
    for file in (files.config_file, files.overrides_file):
        if file.is_file():
            packed[f".hydra/{file.name}"] = _pack_settings(file)
    kept: Json = {key: status[key] for key in ("config_hash", "epoch", "max_epochs", "diverged") if key in status}
    if state == "finished":
        result = read_object(files.result_file)
        kept |= {key: result[key] for key in ("config_hash",) if key in result}
        cleaned = {key: without_folders(value) if key in _WITH_PATHS else value for key, value in result.items()}
        packed["result.json"] = to_json(add_digest(cleaned)).encode()
        if files.history_file.is_file():
            packed["metrics.csv"] = files.history_file.read_bytes()
        if (classes := read_predicted_classes(path)) is not None:
            packed[PREDICTED_CLASSES] = pack_predicted_classes(classes)
    kept |= {"state": state, "error": without_folders(reason), "keep": "none", "bundled": True}
    packed["status.json"] = to_json(add_digest(kept)).encode()
    return packed


def _pack_settings(file: Path) -> bytes:
    """Return `config.yaml` or `overrides.yaml` without what belongs to a machine; the config hash stays."""
    try:
        settings = OmegaConf.load(file)
    except Exception as error:  # YAML and OmegaConf raise a dozen kinds over damaged text
        raise ValueError(f"{file} is damaged: {str(error).splitlines()[0]}") from None
    plain: Any = OmegaConf.to_container(settings, resolve=False)
    if not isinstance(settings, DictConfig):
        return OmegaConf.to_yaml(without_machine(plain)).encode()
    plain.pop("logger", None)
    if isinstance(plain.get("choices"), dict):
        plain["choices"].pop("logger", None)
    if isinstance(plain.get("data"), dict):
        plain["data"] |= {"root": "data"} if "root" in plain["data"] else {}
        plain["data"].pop("stage", None)
    if isinstance(plain.get("init_from"), dict):  # known by its digest
        plain["init_from"]["run"] = Path(str(plain["init_from"]["run"])).name
    if isinstance(plain.get("overrides"), list):
        plain["overrides"] = without_machine(plain["overrides"])
    return OmegaConf.to_yaml(OmegaConf.create(plain)).encode()


def without_machine(overrides: Iterable[Any]) -> list[str]:
    """Return overrides without those that belong to a machine; `init_from` names a run without its folders."""
    kept = []
    for text in map(str, overrides):
        key = text.lstrip("+~").partition("=")[0]
        if key not in _MACHINES_KEYS and not key.startswith("logger"):
            kept.append(without_folders(text) if key == "init_from" else text)
    return kept


def without_folders(value: Any) -> Any:
    """Return texts without the folders of this machine: of each absolute path in them its last part stays."""
    if isinstance(value, dict):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(each) for each in value]
    if not isinstance(value, str):
        return value
    for known in sorted({str(Path.cwd()), str(Path.home())}, key=len, reverse=True):  # these may hold spaces
        value = value.replace(f"{known}/", "/") if len(known) > 1 else value
    return _FOLDERS.sub("", value)


def write_bundle(bundle: Bundle, path: Path) -> None:
    """Write a bundle, atomically; the same bytes for the same content.

    Raises:
        UserError: It cannot be written there, or something else is there.
    """
    files = bundle.files()
    manifest = add_digest(
        {
            "format": FORMAT,
            "convolt": __version__,
            "kind": bundle.kind,
            "folder": bundle.folder,
            "runs": sorted(bundle.runs),
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
        }
    )
    if path.exists():
        try:
            read_bundle(path)
        except UserError:
            raise UserError(f"{path} is there and is no bundle; choose another name") from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as beside, ZipFile(beside, "w", ZIP_DEFLATED) as archive:
            for name, data in [(MANIFEST, to_json(manifest).encode()), *sorted(files.items())]:
                entry = ZipInfo(name)  # of 1980, whenever it is written
                entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, data)
    except OSError as error:
        raise UserError(explain_os_error(error, path)) from None


def is_bundle(path: Path) -> bool:
    """Tell whether a file is meant as a bundle, by its name or its content; it may be damaged."""
    return path.is_file() and (path.suffix == ".zip" or is_zipfile(path))


def read_bundle(path: Path) -> Bundle:
    """Read a bundle whole, and compare every digest.

    Raises:
        UserError: It is missing, damaged, of another version, or no bundle.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is no file that can hold a bundle; choose another name")
    try:
        with ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if MANIFEST not in entries:
                raise _NotOursError("it has no bundle.json")
            _check_sizes(path, archive)
            manifest = json.loads(archive.read(MANIFEST))
            if manifest["format"] != FORMAT:
                raise _NotOursError(f"its format is {manifest['format']}, and this version reads {FORMAT}")
            if DIGEST not in manifest or is_damaged(manifest):
                raise ValueError("bundle.json is not what was signed")
            if {*manifest["files"], MANIFEST} != {*entries}:
                raise ValueError("its files are not those of bundle.json")
            content = {name: archive.read(name) for name in manifest["files"]}
    except FileNotFoundError:
        raise UserError(
            f"there is no bundle {path}; {command_name('report')} STUDY --bundle {path.name} makes one"
        ) from None
    except IsADirectoryError:
        raise UserError(
            f"{path} is a folder; {command_name('report')} {path} --bundle study.zip makes a bundle of it"
        ) from None
    except _NotOursError as error:
        raise UserError(f"{path} is not a bundle that can be read: {error}; {_make_again()}") from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} is damaged, or no bundle ({reason}): copy it again, or {_make_again()}") from None
    try:
        return _check_content(manifest, content)
    except _UNREADABLE as error:
        raise UserError(f"{path} is damaged ({error}): copy it again, or {_make_again()}") from None


def _make_again() -> str:
    return f"make it with {command_name('report')} STUDY --bundle FILE.zip"


class _NotOursError(Exception):
    """A whole zip file that this version cannot use."""


def _check_sizes(path: Path, archive: ZipFile) -> None:
    """Refuse what would fill the memory, stands there twice, or is no plain file.

    Raises:
        ValueError: Says what is wrong.
    """
    entries = archive.infolist()
    if len({entry.filename for entry in entries}) != len(entries):
        raise ValueError("a file stands in it twice")
    if any(stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG) for entry in entries):
        raise ValueError("it holds something else than plain files")
    if any(entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for entry in entries):
        raise ValueError("it is compressed in an unknown way")
    size = path.stat().st_size
    too_large = any(entry.file_size > _LARGEST for entry in entries)
    if too_large or sum(entry.file_size for entry in entries) > _MOST_INFLATED * size + 2**20:
        raise ValueError("its content is far larger than any results")


def _check_content(manifest: Json, content: dict[str, bytes]) -> Bundle:
    """Compare digests and names, and sort files by run.

    Raises:
        ValueError: Says what is wrong.
    """
    places = {str(place) for place in manifest["runs"]}
    names = {_join(place, name): (place, name) for place in places for name in RUN_FILES}
    runs: dict[str, dict[str, bytes]] = {place: {} for place in sorted(places)}
    shared = {}
    study = json.loads(content.get(STUDY, b"{}"))
    for place in [*places, str(manifest["folder"]), *_find_directories(study)]:
        if not _is_plain_path(place):
            raise ValueError(f"a folder is called {place!r}")
    if (manifest["kind"] in ("study", "search")) != (STUDY in content):
        raise ValueError(f"it is of the kind {manifest['kind']}")
    for name, data in content.items():
        if hashlib.sha256(data).hexdigest() != manifest["files"][name]:
            raise ValueError(f"{name} is not what was written")
        if name in (STUDY, EARLIER_RESULTS):
            shared[name] = data
        elif name in names:
            place, file = names[name]
            runs[place][file] = data
        else:
            raise ValueError(f"{name} belongs to no run")
        if name.endswith(".json") and (not isinstance(value := json.loads(data), dict) or is_damaged(value)):
            raise ValueError(f"{name} is not what was signed")
        if name.endswith(".npz"):
            with ZipFile(io.BytesIO(data)) as arrays:
                if sum(entry.file_size for entry in arrays.infolist()) > _LARGEST:
                    raise ValueError(f"{name} is far larger than any predictions")
    return Bundle(str(manifest["kind"]), str(manifest["folder"]), runs, shared)


def _is_plain_path(place: str) -> bool:
    """Tell whether a relative path stays below its folder on every system; "" is the folder itself."""
    plain = (part.strip(". ") and not re.search(r"^.:|[\\\x00-\x1f]", part) for part in place.split("/"))
    return not place or all(plain)


def _find_directories(value: Any) -> list[str]:
    """Return the directories of runs that `study.json` names."""
    if isinstance(value, list):
        return [place for each in value for place in _find_directories(each)]
    if not isinstance(value, dict):
        return []
    below = [place for each in value.values() for place in _find_directories(each)]
    return [str(value["dir"]), *below] if "dir" in value else below


def _join(place: str, name: str) -> str:
    return f"{place}/{name}" if place else name


def unpack(bundle: Bundle, folder: Path) -> Path:
    """Write a bundle's files below a folder that nobody else uses.

    Returns:
        The folder that was bundled.
    """
    top = folder / bundle.folder
    for name, data in bundle.files().items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return top
