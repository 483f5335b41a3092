"""The pages in Markdown: links lead somewhere, pictures are small, and the site's own additions say what conf/ says."""

import re
from pathlib import Path
from typing import Any

import gallery
import options_tables
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from convolt.config.compose import compose
from convolt.config.settings import flatten

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^(?: {4}|\t).*$|`[^`\n]*`", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    lost = []
    for target in LINK.findall(CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or not file.is_relative_to(ROOT) or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert lost == []


def test_pictures_are_small_and_shown() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs/images").iterdir()}
    assert {name: size for name, size in sizes.items() if size > 60_000} == {}
    assert sum(sizes.values()) <= 600_000
    text = "\n".join(page.read_text() for page in PAGES)
    assert [name for name in sizes if f"images/{name})" not in text] == []


def test_the_gallery_is_what_its_script_makes() -> None:
    page = (ROOT / "docs/gallery.md").read_text()
    shown = set(re.findall(r"images/(\w+)\.png", page))
    assert set(gallery.PICTURES) <= shown
    assert [command for command in gallery.COMMANDS.values() if f"    {command}" not in page] == []
    assert {name for name, _ in gallery.PICTURES.values()} == set(gallery.COMMANDS)


def typed_leaves(node: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """The keys of a page that may be typed, read by a parser of YAML."""
    if isinstance(node, dict) and node:
        below = [typed_leaves(value, (*path, key)) for key, value in node.items()]
        return {key: value for part in below for key, value in part.items()}
    return {} if options_tables.NOT_TYPED & set(path) else {".".join(path): node}


GROUPS = sorted(page.name for page in options_tables.CONF.iterdir() if page.is_dir() and page.name != "hydra")


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_of_an_option_is_listed_with_its_default(group: str) -> None:
    for _, page in options_tables.list_options(group):
        found = {key.name: yaml.safe_load(key.default) for key in options_tables.read_keys(page, group)}
        if group != "study":
            above = () if "@package _global_" in page.read_text() else (group,)
            written = yaml.safe_load(page.read_text())
            assert found == (typed_leaves(written, above) if written else {}), page


def test_every_key_of_every_run_is_listed() -> None:
    page = options_tables.CONF / "train.yaml"
    found = {key.name: yaml.safe_load(key.default) for key in options_tables.read_keys(page)}
    assert found == typed_leaves(yaml.safe_load(page.read_text()))
    keys = {key.name: key.meaning for key in options_tables.read_keys(page)}
    assert keys["trainer.chunk"].endswith("whose hooks see batches only then")  # a comment of two lines
    assert flatten(OmegaConf.to_container(compose())).keys() >= found.keys()


def test_options_page_holds_every_group_and_option() -> None:
    text = (ROOT / "docs/options.md").read_text()
    assert set(re.findall(r"<!-- options: (\w+) -->", text)) == set(GROUPS)
    found = options_tables.read_keys(options_tables.CONF / "train.yaml")
    sections = {key.name.partition(".")[0] for key in found if "." in key.name}
    assert set(re.findall(r"<!-- keys: (\w+) -->", text)) == sections | {"run"}
    page = options_tables.fill(text)
    assert "<!--" not in page
    assert "| `seed` | `0` | weights, order of the images, augmentation, dropout |" in page
    assert "| `data.val_fraction` | `0.1` | stratified part of the training images; 0: no validation" in page
    adam = next(line for line in page.splitlines() if line.startswith("| `adam` |"))
    assert adam.endswith("| `optim.lr=0.001`<br>`optim.betas=[0.9, 0.999]`<br>`optim.eps=1.0e-8`<br>"
                         "`optim.weight_decay=0.0` added to the gradient (L2) |")  # fmt: skip
    mixup = next(line for line in page.splitlines() if line.startswith("| `mixup` |"))
    assert "minimization, https://arxiv.org/abs/1710.09412 |" in mixup  # the sentence, which goes on in a second line
    assert "`augmentation.transforms.mixup.alpha=0.2`" in mixup
    assert "| SGD, momentum and Adam. Which optimizer reaches the best test accuracy in ten epochs? |" in page
    assert "ROOT/&#60;class>/&#42;" in page
    for group in GROUPS:
        for name, _ in options_tables.list_options(group):
            assert f"| `{name}` |" in page


def test_links_out_of_docs_lead_to_pages_and_copies() -> None:
    site_hooks = pytest.importorskip("site_hooks", reason="pip install 'convolt[docs]'")
    measured = "benchmarks/results/peers_cpu.json"
    text = f"[a](../CONTRIBUTING.md#x) [b](../{measured}) [c](data.md) [d](https://x.org/y) ![e](i.png)"
    fresh = f"[a](contributing.md#x) [b](repository/{measured}) [c](data.md) [d](https://x.org/y) ![e](i.png)"
    rewrite = site_hooks.rewrite
    assert rewrite(text, "docs/index.md", "index.md") == fresh
    assert rewrite("[a](../../README.md)", "docs/results/README.md", "results/README.md") == "[a](../index.md)"
    assert rewrite("[a](docs/design.md)", "CONTRIBUTING.md", "contributing.md") == "[a](design.md)"
    assert site_hooks.outside(text, "docs/index.md") == {measured}
    page = (
        '<script src="//x.org/a.js"></script><a href="https://x.org">x</a><img src="i.png"><link rel="next" href="//y">'
    )
    assert site_hooks.LOADED.findall(page) == ['<script src="//x.org/a.js">']
    said = site_hooks.descriptions()
    assert said["quickstart.md"] == "from an empty machine to a table with intervals"


def test_the_network_of_the_course_can_be_built() -> None:
    page = (ROOT / "docs/course.md").read_text()
    code = re.findall(r"^    (from torch import nn\n(?:(?:    .*)?\n)+)", page, re.MULTILINE)[0].replace("\n    ", "\n")
    names: dict[str, Any] = {}
    exec(code, names)
    network = names["Mine"](3, 10, 32)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert (
        sum(weights.numel() for weights in network.parameters())
        == 3 * 16 * 9 + 16 + 16 * 32 * 9 + 32 + 32 * 64 * 10 + 10
    )


def test_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "MIT"
    assert re.search(rf"^## {re.escape(str(citation['version']))}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
