"""Overrides as users write them: paths with any characters, `~`, class names that look like numbers."""

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from convolt.system.files import expand_home

NAMES = ("data.path", "data.root", "data.classes", "data.superclasses", "init_from")
"""Keys whose values are text, also where they look like something else: a folder 2024, the digits' class 3."""

FOLDERS = ("resume", "rerun", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
"""Keys whose value is one path as a whole: a sweep's runs lie in folders such as `optim=sgd,seed=1`."""

_INTERPOLATION = r"\$\{(?:[^{}]|\{[^{}]*\})*\}"
_READABLE = re.compile(r"(?:[A-Za-z0-9_/\-+.$%*@?|: \t\\]|\\[()\[\]{}=,]|\$\{[^{}]*\})*")
"""What Hydra reads without quotes; its grammar is ASCII, and of interpolations it takes none inside another."""

_SURELY_READABLE = re.compile(r"[\w./:@%+\-\[\], ]*", re.ASCII)
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_FUNCTION = re.compile(r"(?:choice|range|interval|glob|sort|shuffle|tag|int|float|str|bool)\s*\(")
_CLOSING = {"[": "]", "{": "}", "(": ")"}


def quote_for_hydra(text: str) -> str:
    """Quote what Hydra's grammar cannot read of an override, and expand `~`; what it can read is unchanged.

    >>> quote_for_hydra("data.path=/photos (2)/größe")
    "data.path='/photos (2)/größe'"
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[+~]*[\w./@$-]*", key, re.ASCII):
        return text
    name = key.lstrip("+~")
    if name in FOLDERS and value.strip():
        whole = _QUOTED.fullmatch(value.strip())
        return f"{key}={_expand_quoted(whole[0]) if whole else _quote_element(value.strip(), name=value != 'null')}"
    if name not in NAMES and _SURELY_READABLE.fullmatch(value):
        return text
    if name not in NAMES and "~" not in value and can_be_read(text):
        return text
    return f"{key}={_quote_elements(value, names=name in NAMES)}"


def parse_overrides(texts: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    """Parse overrides by Hydra's grammar.

    Args:
        texts: The overrides.
        loader: Knows the options of a group, for `glob()`.

    Raises:
        OverrideParseException: Where it cannot read one.
    """
    return OverridesParser.create(loader).parse_overrides([quote_for_hydra(text) for text in texts])


def key_of(override: Override) -> str:
    """Return the key of an override without the `+`, `++` or `~` before it."""
    return str(override.get_key_element()).lstrip("+~")


def typed_keys(texts: Sequence[str]) -> list[str]:
    """Return the keys of overrides, also of those of another version that cannot be parsed any more."""
    keys = []
    for text in texts:
        try:
            keys.append(key_of(parse_overrides([text])[0]))
        except HydraException:
            keys.append(text.lstrip("+~").partition("=")[0])
    return keys


def override_values(texts: Sequence[str]) -> dict[str, Any]:
    """Return the value of each key, the last one that was typed; of a sweep its text.

    Raises:
        OverrideParseException: Where Hydra's grammar cannot read one.
    """
    found = [(key_of(each), each) for each in parse_overrides(texts)]
    return {key: each.get_value_string() if each.is_sweep_override() else each.value() for key, each in found}


def format_override(key: str, value: Any) -> str:
    """Write an override so that Hydra reads the value as the same again."""

    def quoted(item: Any) -> Any:
        if isinstance(item, list | tuple):
            return [quoted(each) for each in item]
        if isinstance(item, dict):
            return {name: quoted(each) for name, each in item.items()}
        return QuotedString(item, Quote.single) if isinstance(item, str) else item

    return f"{key}={Override._get_value_element_as_str(quoted(value))}"


def can_be_read(text: str) -> bool:
    """Return whether Hydra's grammar takes an override."""
    try:
        return bool(OverridesParser.create().parse_override(text).key_or_group)
    except Exception:  # Hydra's and antlr's, of several kinds
        return False


def _quote_elements(value: str, *, names: bool) -> str:
    """Quote the elements of a value that need it, in lists, functions and sweeps too."""
    out, open_, at = "", "", 0  # open_: what closes the brackets around
    while at < len(value):
        rest = value[at:]
        blank = len(rest) - len(rest.lstrip())
        opening = _FUNCTION.match(rest, blank) or re.compile(r"[\[{]").match(rest, blank)
        quoted = _QUOTED.match(rest, blank)
        if opening:
            out, at = out + rest[: opening.end()], at + opening.end()
            open_ += _CLOSING[opening[0][-1]]
            at, out = _skip_key(value, at, open_, out)
            continue
        if quoted and re.match(r"\s*([,\]})]|$)", rest[quoted.end() :]):
            out, at = out + rest[:blank] + _expand_quoted(quoted[0]), at + quoted.end()
        else:
            end = _end_of_element(value, at, open_[-1:])
            text = value[at:end]
            stripped = text.strip()
            done = _quote_element(stripped, name=names and (stripped != "null" or bool(open_))) if stripped else ""
            out, at = out + text.replace(stripped, done, 1) if stripped else out + text, end
        while at < len(value) and (value[at].isspace() or (open_ and value[at] == open_[-1])):
            open_ = open_ if value[at].isspace() else open_[:-1]
            out, at = out + value[at], at + 1
        if at < len(value):
            if value[at] != ",":
                return out + value[at:]  # for Hydra to refuse
            at, out = _skip_key(value, at + 1, open_, out + ",")
    return out


def _skip_key(value: str, at: int, open_: str, out: str) -> tuple[int, str]:
    """Skip the key before an element: of a dictionary, or of a function's argument."""
    key = {"}": r"[^:,{}]*:", ")": r"\s*\w+\s*="}.get(open_[-1:])
    found = re.compile(key).match(value, at) if key else None
    return (found.end(), out + found[0]) if found else (at, out)


def _end_of_element(value: str, at: int, closing: str) -> int:
    """Return where an element without quotes ends."""
    inside = re.compile(rf"{_INTERPOLATION}|\\.|[^,{re.escape(closing)}]" if closing else rf"{_INTERPOLATION}|\\.|[^,]")
    while at < len(value) and (found := inside.match(value, at)):
        at = found.end()
    return at


def _quote_element(text: str, *, name: bool) -> str:
    """Quote an element where Hydra could not read it, or, of a name, would read something else than text."""
    if "${" in re.sub(_INTERPOLATION, "", text):
        return text  # for Hydra to refuse
    plain = re.sub(r"\\([\\()\[\]{}:=, \t])", r"\1", text)
    if (home := expand_home(plain)) != plain:
        return home if _READABLE.fullmatch(home) else _quoted(home)
    if _READABLE.fullmatch(text):
        return _quoted(plain) if name and not _is_text(text) else text
    return _quoted(plain)


def _expand_quoted(text: str) -> str:
    """Expand `~` within quotes."""
    return _quoted(expand_home(text[1:-1])) if text[1:2] == "~" else text


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def _is_text(element: str) -> bool:
    """Return whether Hydra reads an element without quotes as text."""
    if re.fullmatch(r"[A-Za-z_/.][\w./-]*", element) and element.lower() not in ("true", "false", "null", "nan", "inf"):
        return not re.fullmatch(r"\.\d[\d_.eE+-]*", element)
    return isinstance(OverridesParser.create().parse_rule(element, "primitive"), str)
