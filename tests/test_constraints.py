"""constraints.txt holds a version of all that is always needed, and one that pyproject.toml accepts."""

import re

import constraints


def test_every_dependency_is_pinned_to_a_version_that_is_accepted() -> None:
    text = constraints.PAGE.read_text()
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))
    assert len(pinned) == len(text.splitlines()) - 1
    needed = {each.name: each for each in constraints.read_requirements(extras=False)}
    assert {"torch", "hydra-core", "scipy"} <= {*needed} <= {*pinned}
    for each in constraints.read_requirements():
        if each.name in pinned:
            assert each.specifier.contains(pinned[each.name]), each


def test_what_is_needed_by_what_is_needed_is_pinned_too() -> None:
    names = [line.partition("==")[0] for line in constraints.find_versions(constraints.read_requirements())]
    assert len(names) == len({*names})
    assert {"omegaconf", "antlr4-python3-runtime", "pluggy"} <= {*names}
    assert not [name for name in names if name.startswith("nvidia")]
