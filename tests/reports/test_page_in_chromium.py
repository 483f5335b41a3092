"""What a person sees of a report's page in headless Chromium; skipped where that is missing."""

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from convolt.reports.report import main
from headless_chromium import Browser, needs_chromium
from written_study import make_study

pytestmark = needs_chromium

LONG = "a rather long name of a row, with batchnorm=after and activation=leaky_relu"
ROWS = {"sgd": 0.60, LONG: 0.58, "adam": 0.70, "rmsprop": 0.69}
ALL_RUNS = [f"{name}/seed={seed}" for name in ROWS for seed in range(6)]  # 24: so many rows fold

SIZES = "[document.documentElement.scrollWidth, innerWidth, matchMedia('(max-width: 40rem)').matches]"
HIDDEN_ROWS = "[...document.querySelectorAll('tbody tr')].filter(row => !row.checkVisibility()).length"
LOWEST_CONTRAST = """(() => {
  const rgb = color => color.match(/[\\d.]+/g).map(Number);
  const luminance = color => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const c = color[i] / 255;
    return sum + weight * (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  }, 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = rgb(getComputedStyle(e).backgroundColor);
      if (color[3] !== 0) return color;
    }
    return [255, 255, 255];
  };
  let lowest = [99, ''];
  for (const element of document.querySelectorAll('body *')) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    if (['STYLE', 'SCRIPT'].includes(element.tagName)) continue;
    const [a, b] = [rgb(getComputedStyle(element).color), behind(element)].map(luminance).sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < lowest[0]) lowest = [contrast, element.outerHTML.slice(0, 80)];
  }
  return lowest;
})()"""
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
COLUMN = """([...document.querySelector('#part-0 tbody').rows].map(row => row.cells[0].textContent).join('|'))"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a report with four rows, negative differences, dashes, footnotes, a folded table and figures."""
    folder = tmp_path_factory.mktemp("page") / "s"
    spread = (0.0, 0.013, -0.011, 0.004, 0.021, -0.002)
    rows = {
        name: {seed: mean + spread[seed] * (1 + i / 4) for seed in range(6)}
        for i, (name, mean) in enumerate(ROWS.items())
    }
    published = {"spec": {"published": {"test/accuracy": 0.71, "source": "somebody 2020"}}, "slots": 2}
    make_study(folder, dict(rows), row_adam=published)
    assert main([str(folder)]) == 0
    return folder / "report/report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.mark.parametrize("scripts", [True, False])
def test_nothing_is_wider_than_a_phone(browser: Browser, report: Path, scripts: bool) -> None:
    session = browser.open(report.as_uri(), 360, scripts=scripts)
    assert browser.evaluate(session, SIZES) == [360, 360, True]
    browser.evaluate(session, "document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.evaluate(session, SIZES) == [360, 360, True]
    table = "document.querySelector('.scroll')"
    assert browser.evaluate(session, f"{table}.scrollWidth > {table}.clientWidth")  # it scrolls in its box
    stays = f"({table}.scrollLeft = 99, {table}.querySelector('tbody th').getBoundingClientRect().left)"
    assert browser.evaluate(session, stays) == browser.evaluate(session, f"{table}.getBoundingClientRect().left")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(browser: Browser, report: Path, scheme: str) -> None:
    session = browser.open(report.as_uri(), 1280, scheme)
    is_dark = {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 24, 26)"}
    assert browser.evaluate(session, BACKGROUND) == is_dark[scheme]
    contrast, where = browser.evaluate(session, LOWEST_CONTRAST)
    assert contrast >= 4.5, where
    other = "dark" if scheme == "light" else "light"
    switch = "document.querySelector('.tools button:last-child')"
    assert browser.evaluate(session, f"({switch}.click(), {BACKGROUND})") == is_dark[other]
    turned = browser.evaluate(session, "getComputedStyle(document.querySelector('.chart img')).filter")
    assert (turned == "none") == (other == "light")
    contrast, where = browser.evaluate(session, LOWEST_CONTRAST)
    assert contrast >= 4.5, where
    assert browser.evaluate(session, f"({switch}.click(), {BACKGROUND})") == is_dark[scheme]


def test_columns_sort(browser: Browser, report: Path) -> None:
    session = browser.open(report.as_uri())

    def click(label: str) -> list[str]:
        found = (
            f"[...document.querySelectorAll('#part-0 th button')].find(one => one.textContent.startsWith('{label}'))"
        )
        return str(browser.evaluate(session, f"({found}.click(), {COLUMN})")).split("|")

    def sorted_by() -> list[str]:
        marks = "[...document.querySelectorAll('#part-0 th[aria-sort]')].map(th => th.ariaSort + ' ' + th.textContent)"
        return list(browser.evaluate(session, marks))

    before = [*ROWS]
    sgd, long, adam, rmsprop = before
    assert click("difference") == [long, rmsprop, adam, sgd]  # below zero first, the baseline, without a number, last
    assert sorted_by() == ["ascending difference ± 95%"]
    assert click("difference") == [adam, rmsprop, long, sgd]
    assert click("published") == [adam, rmsprop, long, sgd]  # those without a number keep their order
    assert sorted_by() == ["ascending published"]
    assert click("row") == [long, adam, rmsprop, sgd]
    assert click("row") == [sgd, rmsprop, adam, long]
    assert click("row") == before


def test_parts_fold(browser: Browser, report: Path) -> None:
    session = browser.open(report.as_uri())
    sections = browser.evaluate(session, "document.querySelectorAll('section > details[open] > summary h2').length")
    assert sections == browser.evaluate(session, "document.querySelectorAll('nav a').length") >= 6
    assert browser.evaluate(session, "document.querySelectorAll('details > figure, .chart').length") >= 3
    assert browser.evaluate(session, HIDDEN_ROWS) > 24  # the runs, and the classes of each row
    names = "[...document.querySelectorAll('.tools button')].map(one => one.textContent)"
    assert browser.evaluate(session, names) == ["Fold all", "Unfold all", "Dark"]
    fold, unfold = (f"document.querySelectorAll('.tools button')[{i}].click()" for i in (0, 1))
    rows = browser.evaluate(session, "document.querySelectorAll('tbody tr').length")
    assert browser.evaluate(session, f"({fold}, {HIDDEN_ROWS})") == rows
    assert browser.evaluate(session, f"({unfold}, {HIDDEN_ROWS})") == 0


def test_without_scripts_there_are_no_buttons_and_all_is_there(browser: Browser, report: Path) -> None:
    session = browser.open(report.as_uri(), scripts=False)
    assert browser.evaluate(session, "document.querySelectorAll('button').length") == 0
    assert "adam beats sgd by" in browser.evaluate(session, "document.querySelector('.summary').innerText")
    browser.evaluate(
        session, "document.querySelectorAll('summary').forEach(one => one.parentElement.open || one.click())"
    )
    assert browser.evaluate(session, HIDDEN_ROWS) == 0


@pytest.mark.parametrize("scripts", [True, False])
def test_what_is_folded_is_printed(browser: Browser, report: Path, tmp_path: Path, scripts: bool) -> None:
    session = browser.open(report.as_uri(), 1280, "dark", scripts)
    options = {"preferCSSPageSize": True, "paperWidth": 8.27, "paperHeight": 11.69}
    pdf = base64.b64decode(browser.call("Page.printToPDF", session, **options)["data"])
    assert len(re.findall(rb"/Type ?/Page\b", pdf)) >= 5
    browser.set_media(session, "dark", "print")
    assert browser.evaluate(session, "document.documentElement.scrollWidth <= innerWidth")
    assert browser.evaluate(session, BACKGROUND) == "rgb(255, 255, 255)"
    if program := shutil.which("pdftotext"):
        (tmp_path / "page.pdf").write_bytes(pdf)
        text = subprocess.run([program, tmp_path / "page.pdf", "-"], check=True, capture_output=True, text=True).stdout
        text = "".join(text.split())
        assert all("".join(run.split()) in text for run in ALL_RUNS if LONG not in run)
        assert "Foldall" not in text
