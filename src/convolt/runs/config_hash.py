"""The hash of a run's settings, by which its result and its checkpoints are recognized."""

import hashlib
import json
import pickle
from typing import Any

from omegaconf import DictConfig, OmegaConf

from convolt.config.settings import KEYS_ADDED_LATER

NOT_HASHED = ("force", "summary", "overrides", "pictures", "data.root", "data.stage", "logger", "choices.logger",
              "trainer.chunk")  # fmt: skip
"""Settings (and sections) that cannot change a number."""

_HASHED_AS_NULL = NOT_HASHED[:5]
"""Those that were there from the first, and stand in every hash as null; later ones are left out."""


def config_hash(cfg: DictConfig) -> str:
    """Return a digest of what was requested, without what cannot change a number: 16 hexadecimal digits.

    Keys and groups that came later count where they are not at their defaults (`KEYS_ADDED_LATER`); where weights come
    from (`init_from`) counts by their digest.
    """
    requested: DictConfig = pickle.loads(pickle.dumps(cfg))  # half of what other ways to copy it take
    requested._set_flag(["struct", "readonly"], [False, False])
    for key in _HASHED_AS_NULL:
        OmegaConf.update(requested, key, None, force_add=True)
    plain: Any = OmegaConf.to_container(requested, resolve=True)
    for key in NOT_HASHED[len(_HASHED_AS_NULL) :]:
        _leave_out(plain, key)
    trainer = plain.get("trainer", {})
    if trainer.get("batch_per", "run") == "run" and "devices" in trainer:
        trainer["devices"] = 1  # any number of devices takes the same steps
    if isinstance(plain.get("init_from"), dict):
        plain["init_from"] = plain["init_from"]["sha256"]
    for key, before in KEYS_ADDED_LATER.items():
        _leave_out(plain, key, before)
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _leave_out(settings: dict[str, Any], key: str, value: Any = ...) -> None:
    """Remove a dotted key, if it is there and has the value (`...`: any)."""
    *sections, name = key.split(".")
    node: Any = settings
    for section in sections:
        node = node.get(section) if isinstance(node, dict) else None
    if isinstance(node, dict) and name in node and (value is ... or node[name] == value):
        del node[name]
