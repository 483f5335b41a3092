"""The report on synthetic run directories whose numbers are known."""
# ruff: noqa: RUF001 (the dash of empty cells)

import base64
import csv
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from convolt.errors import UserError
from convolt.reports import study_tables
from convolt.reports.collect import open_folder, read_group
from convolt.reports.formats import Metric
from convolt.reports.report import main
from convolt.reports.statistics import analyze
from convolt.reports.table import to_rich
from decided_study import write_search
from written_study import make_run, make_study

ROOT = Path(__file__).resolve().parents[2]
ACCURACY = Metric("test/accuracy")


KNOWN: dict[str, dict[int, float | None]] = {
    "sgd": {0: 0.60, 1: 0.62, 2: 0.64},
    "adam": {0: 0.70, 1: 0.73, 2: 0.76},
    "momentum": {0: 0.65, 1: 0.68, 2: 0.67},
}
# sgd: mean 0.62, s = √((0.02² + 0 + 0.02²) / 2) = 0.02; t(0.975, 2) = 4.302653; half = 4.302653 * 0.02 / √3 = 0.049683
# adam - sgd: 0.10, 0.11, 0.12: mean 0.11, s = 0.01, half = 4.302653 * 0.01 / √3 = 0.024841
# t = 0.11 / (0.01 / √3) = 19.0526; p(t, 2) = 1 - t / √(2 + t²) = 1 - 19.0526 / √365 = 0.0027435; Holm, 2 rows: 0.005487
# momentum - sgd: 0.05, 0.06, 0.03: mean 0.046667, s = 0.0152753, t = 5.29150, p = 1 - 5.2915 / √30 = 0.033908


def report(folder: Path, *arguments: str) -> Path:
    assert main([str(folder), "--no-figures", *arguments]) == 0
    return folder / "report"


def table(folder: Path, name: str = "results") -> dict[str, dict[str, str]]:
    """Read a CSV of a report by its first column."""
    lines = list(csv.DictReader((folder / f"report/tables/{name}.csv").read_text().splitlines()))
    return {line["row"]: line for line in lines}


class Page(HTMLParser):
    """Collects what a page says and what it would load."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data + "\n"


def test_known_numbers_in_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = {"spec": {"published": {"test/accuracy": 0.843, "source": "chhipani_2021 & co"}}}
    study = make_study(tmp_path / "optimizers", KNOWN, row_adam=published)
    out = report(study)

    rows = table(study)
    sgd, adam, momentum = rows["sgd"], rows["adam"], rows["momentum"]
    assert list(rows) == ["sgd", "adam", "momentum"]
    assert {k: float(sgd[k]) for k in ("n", "mean", "standard_deviation", "best", "worst")} == pytest.approx(
        {"n": 3, "mean": 0.62, "standard_deviation": 0.02, "best": 0.64, "worst": 0.60}
    )
    assert float(sgd["interval_low"]) == pytest.approx(0.62 - 0.049683, abs=1e-6)
    assert float(sgd["interval_high"]) == pytest.approx(0.62 + 0.049683, abs=1e-6)
    assert sgd["difference"] == ""
    assert float(adam["difference"]) == pytest.approx(0.11)
    assert float(adam["difference_low"]) == pytest.approx(0.11 - 0.024841, abs=1e-6)
    assert float(adam["p_value"]) == pytest.approx(0.0027435, abs=1e-7)
    assert float(adam["p_value_holm"]) == pytest.approx(0.005487, abs=1e-6)
    assert float(momentum["p_value"]) == pytest.approx(0.033908, abs=1e-6)
    assert momentum["p_value_holm"] == momentum["p_value"]
    assert float(adam["difference_from_published"]) == pytest.approx(0.73 - 0.843)
    assert adam["published_source"] == "chhipani_2021 & co"
    assert float(adam["train_test_gap"]) == pytest.approx(0.05)
    assert (float(adam["train"]), float(adam["val"])) == pytest.approx((0.78, 0.74))
    assert (float(adam["parameters"]), float(adam["macs"]), float(adam["seconds"])) == (61706, 416520, 91)

    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[:-2])) <= 100  # but for the paths at the end
    for text in (shown, (out / "report.md").read_text()):
        for number in ("62.00 ± 4.97", "73.00 ± 7.45", "+11.00 ± 2.48", "0.005", "84.30", "-11.30", "61.7 k"):
            assert number in text
    assert "| sgd | 3 | 62.00 ± 4.97 | 2.00 | baseline | – | – | – |" in (out / "report.md").read_text()
    assert "Holm-corrected over 2 rows" in " ".join(shown.split())

    tex = (out / "tables/results.tex").read_text()
    assert r"adam & 3 & 73.00 $\pm$ 7.45 & 3.00 & +11.00 $\pm$ 2.48 & 0.005 & 84.30 & $-$11.30 \\" in tex
    assert tex.count("{") == tex.count("}")
    assert all(rule in tex for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"chhipani\_2021 \& co" in (out / "tables/published.tex").read_text()


def test_the_page_loads_nothing_and_holds_the_numbers(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", {"a": {0: 0.5, 1: 0.6}, "b": {0: 0.6, 1: 0.75}}, row_b={"parameters": 100_000})
    picture = study / "a/seed=0/figures/mistakes.png"
    picture.parent.mkdir()
    picture.write_bytes(base64.b64decode("iVBORw0KGgo="))
    assert main([str(study)]) == 0
    text = (study / "report/report.html").read_text()
    page = Page(text)
    for _, name, value in page.attributes:
        assert name not in ("src", "href") or value.startswith(("data:image/", "#"))
    assert not re.search(r"https?://|@import|url\(", text)
    contents = [value for tag, name, value in page.attributes if (tag, name) == ("meta", "content")]
    assert any("default-src 'none'" in content for content in contents)
    assert ("meta", "name", "viewport") in page.attributes
    for number in (
        "55.00 ± 63.53",
        "67.50 ± 95.30",
        "+12.50 ± 31.77",
    ):  # t(0.975, 1) = 12.7062; 12.7062 * 0.05 = 0.6353
        assert number in page.text
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert "data:image/png;base64,iVBORw0KGgo=" in sources
    figures = {path.name for path in (study / "report/figures").iterdir()}
    names = ("comparison", "curves", "per_class", "parameters", "time", "confusion_01_a", "confusion_02_b")
    names += ("time_to_target",)
    # All rows take the same time on average only if their seeds do: 90 s and 91 s for both, so no figure of time.
    assert figures == {f"{name}.{form}" for name in names if name != "time" for form in ("png", "svg")}
    assert not list(study.rglob(".*.tmp"))


def test_what_users_write_is_escaped(tmp_path: Path) -> None:
    bad = "<script>alert('$x_1$ & \"y\"')</script>"
    row = {"spec": {"note": bad, "published": {"test/accuracy": 0.5, "source": bad}}}
    study = make_study(tmp_path / "s", {"a|b[c]": {0: 0.5}}, title=bad, question=bad, **{"row_a|b[c]": row})
    assert main([str(study)]) == 0
    text = (study / "report/report.html").read_text()
    assert text.count("<script>") == 1
    assert "&lt;script&gt;" in text
    assert bad in Page(text).text
    markdown = (study / "report/report.md").read_text()
    assert "<script>" not in markdown
    assert r"a\|b\[c\]" in markdown
    tex = (study / "report/tables/published.tex").read_text()
    assert r"\$x\_1\$ \&" in tex
    assert r"$<$script$>$" in tex


def test_runs_without_a_result_are_listed_with_their_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: dict[str, dict[int, float | None]] = {"a": {0: 0.5, 1: 0.6, 2: 0.7}, "b": dict.fromkeys(range(6))}
    study = make_study(tmp_path / "s", rows)
    failed = {"state": "failed", "error": "ValueError: too\n  deep", "traceback": "..."}
    make_run(study / "b/seed=0", None, 0, status=failed)
    make_run(study / "b/seed=1", None, 1, status={"state": "interrupted", "epoch": 1, "max_epochs": 9})
    make_run(study / "b/seed=2", None, 2, status={"state": "running", "epoch": 3, "max_epochs": 9})
    (study / "b/seed=2/.lock").touch()
    make_run(study / "b/seed=3", 0.4, 3)
    (study / "b/seed=3/result.json").write_text('{"metrics": ')
    make_run(study / "b/seed=4", 0.4, 4, metrics={"test/accuracy": None})
    report(study)
    lines = list(csv.DictReader((study / "report/tables/unfinished.csv").read_text().splitlines()))
    reasons = {line["seed"]: (line["state"], line["reason"]) for line in lines}
    assert reasons["0"] == ("failed", "ValueError: too deep")
    assert reasons["1"] == ("interrupted", "stopped at epoch 1 of 9; the same command continues it")
    assert reasons["2"][0] == "cut off"
    assert reasons["2"][1].startswith("at epoch 3 of 9, last seen")
    assert reasons["3"][0] == "failed"
    assert "result.json cannot be read" in reasons["3"][1]
    assert reasons["4"][0] == "no test/accuracy"
    assert reasons["5"] == ("missing", "never started")
    assert table(study)["b"]["n"] == "0"
    assert "0 of 6" in capsys.readouterr().out


def test_a_run_whose_lock_is_held_is_running(tmp_path: Path) -> None:
    from filelock import FileLock

    run = make_run(tmp_path / "run", None, status={"state": "running", "epoch": 3, "max_epochs": None})
    with FileLock(run / ".lock"):
        assert [one.state for one in open_folder(run)[0].runs] == ["running"]
    (run / ".lock").touch()
    assert [one.state for one in open_folder(run)[0].runs] == ["cut off"]


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", {"a": {0: 0.5}, "b": {0: 0.6}})
    text = (report(study) / "report.md").read_text()
    assert "| a | 1 | 50.00 ± – | – | baseline | – |" in text
    assert "| b | 1 | 60.00 ± – | – | +10.00 ± –<sup>a</sup> | – |" in text
    assert "one common seed: no interval, no test" in text
    assert "nan" not in text.lower()
    assert "interval_low" in table(study)["a"]
    assert table(study)["a"]["interval_low"] == ""


@pytest.mark.filterwarnings("error")
def test_no_spread_is_no_nonsense(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", {"a": {0: 0.1, 1: 0.1, 2: 0.1}, "b": {0: 0.3, 1: 0.3, 2: 0.3}})
    text = (report(study) / "report.md").read_text()
    assert "| b | 3 | 30.00 ± 0.00<sup>a</sup> | 0.00 | +20.00 ± 0.00<sup>b</sup> | – |" in text
    assert "all seeds gave the same value" in text
    assert "nan" not in text.lower()


def test_pairs_are_made_of_common_seeds(tmp_path: Path) -> None:
    rows: dict[str, dict[int, float | None]] = {
        "a": {0: 0.5, 1: 0.6, 2: 0.9},
        "two": {0: 0.6, 1: 0.8, 2: None, 3: 0.1},
        "none": {5: 0.5, 6: 0.7},
    }
    study = make_study(tmp_path / "s", rows)
    text = (report(study) / "report.md").read_text()
    results = table(study)
    assert (results["two"]["difference_method"], results["two"]["pairs"]) == ("paired", "2")
    assert float(results["two"]["difference"]) == pytest.approx(0.15)  # (0.1 + 0.2) / 2
    assert "over the 2 seeds that both rows have" in text
    assert results["none"]["difference_method"] == "Welch"
    assert float(results["none"]["difference"]) == pytest.approx(0.6 - 2 / 3)
    assert "unpaired (Welch's t test): fewer than two seeds in common" in text


def test_rows_made_otherwise_are_marked(tmp_path: Path) -> None:
    shared = {"slots": 2, "git_commit": "b" * 40 + "-dirty", "device": "NVIDIA H100", "checkpoint": "last"}
    rows: dict[str, dict[int, float | None]] = {"a": {0: 0.5, 1: 0.6}, "b": {0: 0.5, 1: 0.6}, "c": {0: 0.5}}
    study = make_study(tmp_path / "s", rows, row_c=shared, row_b={"dataset_hash": "e" * 64, "precision": None})
    text = (report(study) / "report.md").read_text()
    assert "commit bbbbbbbb-dirty; most runs of this table: aaaaaaaa" in text
    assert "device NVIDIA H100; most runs of this table: cpu" in text
    assert "prepared data eeeeeeeeeeee; most runs of this table: dddddddddddd" in text
    assert "timed while other runs shared the machine" in text
    assert "Tested checkpoints differ: best, last" in text
    assert re.search(r"^\| c<sup>[a-e],", text, re.MULTILINE)
    assert re.search(r"^\| b<sup>.</sup> ", text, re.MULTILINE)  # its precision comes from the config, and is the same
    assert "precision" not in text.split("### Results")[1]


def test_checkpoint_is_named(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", {"a": {0: 0.5}})
    assert "Tested checkpoint: the one that was best on validation." in (report(study) / "report.md").read_text()


def test_a_metric_whose_smaller_values_are_better(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", {"a": {0: 0.5, 1: 0.6}, "b": {0: 0.7, 1: 0.9}})
    text = (report(study, "--metric", "test/loss") / "report.md").read_text()
    rows = table(study)
    assert (float(rows["a"]["best"]), float(rows["a"]["worst"])) == pytest.approx((0.4, 0.5))
    assert list(table(study, "ranking")) == ["b", "a"]
    assert "| 1 | b | 0.2000 |" in text
    assert "lower is better" in text


def test_ranking_names_best_and_worst_classes(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", KNOWN)
    report(study)
    ranking = table(study, "ranking")
    assert list(ranking) == ["adam", "momentum", "sgd"]
    assert ranking["adam"]["best_classes"] == "eel (100.0)"  # of three classes, one: none is both
    assert ranking["adam"]["worst_classes"] == "cat (80.0)"


def test_published_classes_stand_beside_ours(tmp_path: Path) -> None:
    theirs = [{"class": "cat", "precision": None, "accuracy": 0.85}, {"class": "eel", "accuracy": 0.95}]
    study = make_study(tmp_path / "s", {"a": {0: 0.5}}, row_a={"spec": {"published_per_class": theirs}})
    text = (report(study) / "report.md").read_text()
    assert "| cat | 90.00 | 80.00 | 90.00 | 80.00 | 85.00 | 10 |" in text
    lines = list(csv.DictReader((study / "report/tables/per_class.csv").read_text().splitlines()))
    assert [line["published_accuracy"] for line in lines] == ["0.85", "", "0.95"]


def test_a_rate_that_some_seeds_lack_is_the_mean_of_the_others(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", {"a": {0: 0.5, 1: 0.5}, "b": {0: 0.4, 1: 0.4}})
    for seed, lacking in ((0, ("cat", "precision")), (0, ("dog", "accuracy")), (1, ("dog", "accuracy"))):
        file = study / f"a/seed={seed}/result.json"
        result = json.loads(file.read_text())
        next(row for row in result["per_class"] if row["class"] == lacking[0])[lacking[1]] = None
        file.write_text(json.dumps(result))
    report(study)
    lines = list(csv.DictReader((study / "report/tables/per_class.csv").read_text().splitlines()))
    assert [line["precision"] for line in lines[:3]] == ["0.9", "0.9", "0.9"]
    assert [line["accuracy"] for line in lines[:3]] == ["0.8", "", "1.0"]
    assert "dog" not in str(table(study, "ranking")["a"])


def test_swept_overrides_make_rows_with_their_own_baseline(tmp_path: Path) -> None:
    study = tmp_path / "s"
    rows = {}
    for row, gain in (("sgd", 0.0), ("adam", 0.1)):
        runs = []
        for rate, base in (("0.1", 0.5), ("0.01", 0.7)):
            for seed in (0, 1):
                runs.append({"dir": f"{row}/seed={seed},optim.lr={rate}", "seed": seed})
                if (row, rate, seed) != ("adam", "0.01", 1):
                    overrides = (f"optim={row}", f"optim.lr={rate}")
                    make_run(study / runs[-1]["dir"], base + gain * (1 + seed), seed, overrides)
        rows[row] = {"overrides": [f"optim={row}"], "published": None, "runs": runs}
    spec = {"name": "s", "title": "T", "baseline": "sgd", "sweep": {"optim.lr": ["0.1", "0.01"]}, "rows": rows}
    (study / "study.json").write_text(json.dumps(spec))
    report(study)
    results = table(study)
    assert list(results) == ["sgd, optim.lr=0.1", "sgd, optim.lr=0.01", "adam, optim.lr=0.1", "adam, optim.lr=0.01"]
    assert float(results["adam, optim.lr=0.1"]["difference"]) == pytest.approx(0.15)
    assert float(results["adam, optim.lr=0.01"]["difference"]) == pytest.approx(0.1)
    assert results["adam, optim.lr=0.01"]["runs_expected"] == "2"
    assert results["sgd, optim.lr=0.01"]["difference"] == ""


def make_sweep(folder: Path, shift: float = 0.0) -> Path:
    for lr, base in (("0.1", 0.5), ("0.01", 0.6)):
        for seed in (0, 1):
            overrides = ("model=lenet", f"optim.lr={lr}")
            make_run(folder / f"model=lenet,optim.lr={lr},seed={seed}", base + shift * (1 + seed), seed, overrides)
    return folder


def test_a_sweep_is_grouped_by_its_overrides(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "sweeps/now")
    make_run(sweep / "model=lenet,optim.lr=0.1,seed=0.old1", 0.1, 0, ("model=lenet", "optim.lr=0.1"))  # moved aside
    report(sweep, "--baseline", "optim.lr=0.1")
    rows = table(sweep)
    assert list(rows) == ["optim.lr=0.01", "optim.lr=0.1"]
    assert rows["optim.lr=0.1"]["n"] == "2"
    assert float(rows["optim.lr=0.01"]["difference"]) == pytest.approx(0.1)


def test_compare_pairs_two_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = make_sweep(tmp_path / "sweeps/one"), make_sweep(tmp_path / "sweeps/two", shift=0.02)
    make_run(second / "model=lenet,optim.lr=9,seed=0", 0.1, 0, ("model=lenet", "optim.lr=9"))
    assert main(["--compare", str(first), str(second)]) == 0
    out = second / "report/against-one"
    # B - A: 0.02 and 0.04: mean 0.03, s = 0.0141421, half = 12.7062 * 0.01 = 0.127062; t = 3,
    # p = 2/π·atan(1/3) = 0.204833, the same in both rows: Holm doubles it.
    text = (out / "report.md").read_text()
    assert "| optim.lr=0.1 | 2 | 50.00 ± 0.00 | 2 | 53.00 ± 12.71 | +3.00 ± 12.71 | 0.410 |" in text
    assert "Only in B: optim.lr=9." in text
    Page((out / "report.html").read_text())
    assert (out / "figures/comparison.svg").is_file()
    shown = capsys.readouterr().out
    assert "report.html" in shown
    assert max(map(len, shown.splitlines()[:-2])) <= 100


def test_compare_needs_a_common_row(tmp_path: Path) -> None:
    first, second = make_study(tmp_path / "x", {"a": {0: 0.5}, "b": {0: 0.5}}), make_study(tmp_path / "y", KNOWN)
    assert main(["--compare", str(first), str(second)]) == 2


def test_a_container_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(tmp_path / "outputs/studies/optimizers", {"sgd": {0: 0.5, 1: None}})
    make_sweep(tmp_path / "outputs/sweeps/now")
    (tmp_path / "outputs/studies/damaged").mkdir()
    (tmp_path / "outputs/studies/damaged/study.json").write_text("{")
    for number in range(2):
        make_run(tmp_path / f"outputs/runs/lenet_digits_sgd/{number}", 0.5)
    assert main([str(tmp_path / "outputs")]) == 0
    shown = re.sub(r"\s+", "", capsys.readouterr().out)
    for path in ("studies/optimizers", "sweeps/now", "runs/lenet_digits_sgd/0", "runs/lenet_digits_sgd/1"):
        assert f"pythonreport.py{tmp_path}/outputs/{path}" in shown
    assert "1finished" in shown
    assert "1missing" in shown
    assert "damaged/study.json" not in shown
    assert "study.jsonisdamaged" in shown
    assert not list(tmp_path.rglob("report"))


def test_single_runs_given_together_are_one_table(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"runs/{name}/1", value, 0, (f"optim={name}",)) for name, value in (("a", 0.5), ("b", 0.6))
    ]
    assert main(["--no-figures", *map(str, runs)]) == 0
    assert list(table(tmp_path / "runs")) == ["optim=a", "optim=b"]
    report(runs[0])
    assert list(table(runs[0])) == ["optim=a"]


def test_what_is_given_twice_is_reported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make_study(tmp_path / "optimizers", KNOWN)
    assert main([str(study), str(study), "--no-figures"]) == 0
    assert capsys.readouterr().out.count("report.html") == 1


def test_a_folder_is_named_where_it_is_typed_as_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1):
        make_run(tmp_path / f"group/sgd/{seed}", 0.5 + seed / 10, seed)
    monkeypatch.chdir(tmp_path / "group/sgd")
    assert open_folder(Path())[0].title == "Sweep sgd"
    assert read_group(Path(), [Path("0"), Path("1")], "runs").title == "Runs in group/sgd"


def test_a_search_has_no_tests_to_choose_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = write_search(tmp_path / "search")
    for option, value in (("metric", "test/loss"), ("baseline", "sgd"), ("target", "0.9")):
        assert main([str(search), f"--{option}", value, "--no-figures"]) == 2
        line = f"'{search}' is a search, whose trials have a score and no tests: leave out --{option}"
        assert capsys.readouterr().err == f"error: {line}\n"


def test_several_studies_at_once_and_out(tmp_path: Path) -> None:
    studies = [make_study(tmp_path / name, {"a": {0: 0.5}}) for name in ("x", "y")]
    out = tmp_path / "out"
    (out / "x").mkdir(parents=True)
    (out / "x/mine.txt").write_text("stays")
    assert main([*map(str, studies), "--no-figures", "--out", str(out)]) == 0
    assert (out / "x/report.html").is_file()
    assert (out / "y/report.html").is_file()
    assert (out / "x/mine.txt").read_text() == "stays"
    assert not (studies[0] / "report").exists()


def test_an_empty_folder_among_several_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, empty = make_study(tmp_path / "x", {"a": {0: 0.5}}), tmp_path / "empty"
    empty.mkdir()
    assert main([str(empty), str(study), "--no-figures"]) == 0
    assert capsys.readouterr().err.startswith("left out: no runs in")
    assert main([str(empty), str(empty), "--no-figures"]) == 2


def test_a_study_of_which_nothing_finished_still_lists_why(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", {"a": {0: None}, "b": {0: None}})
    assert main([str(study)]) == 0
    assert len((study / "report/tables/unfinished.csv").read_text().splitlines()) == 3


def test_keys_may_be_absent(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", {"a": {0: 0.5}})
    (study / "a/seed=0/result.json").write_text(json.dumps({"metrics": {"test/accuracy": 0.5}}))
    assert main([str(study)]) == 0
    assert "50.00" in (study / "report/report.md").read_text()


def test_keys_may_be_nonsense(tmp_path: Path) -> None:
    odd = {"per_class": ["x", {"class": None, "accuracy": "high"}], "confusion_matrix": [[1], [2, 3]], "slots": None}
    study = make_study(tmp_path / "s", {"a": {0: 0.5}}, row_a=odd | {"seconds": "long", "parameters": True})
    (study / "a/seed=0/metrics.csv").write_text("epoch,train/loss\n1,x\n\x00")
    assert main([str(study)]) == 0
    assert "50.00" in (study / "report/report.md").read_text()


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", {"a": {0: 0.5, 1: 0.6}})
    contents = []
    for _ in range(2):
        assert main([str(study)]) == 0
        contents.append({p: p.read_bytes() for p in (study / "report").rglob("*") if p.is_file()})
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/optimizer"], r"no folder '.*/optimizer'; did you mean 'optimizers'\?"),
        (["{}/empty"], r"no runs in '.*/empty'; `python train.py` makes one"),
        (["{}/optimizers/study.json"], r"'.*study.json' is a file; give the folder"),
        (["{}/optimizers", "--metric", "test/acuracy"], r"no metric 'test/acuracy' .* did you mean 'test/accuracy'"),
        (["{}/optimizers", "--baseline", "adm"], r"no row 'adm' in .*did you mean 'adam'\?; rows: sgd, adam, momentum"),
        (["{}/optimizers", "--metrc", "x"], r"unknown option '--metrc'; did you mean '--metric'\?"),
        (["{}/optimizers", "--metric"], r"argument --metric: expected one argument"),
        (["--compare", "{}", "{}/optimizers"], r"holds several studies or runs"),
        (["--compare", "{}", "{}", "--target", "0.9"], r"--compare has no times to a target: leave out --target"),
        (["--compare", "{}", "{}", "--baseline", "adam"], r"--compare sets B beside A: leave out --baseline"),
        (
            ["{}/optimizers", "--bundle", "{}/a.zip", "--target", "0.9"],
            r"--bundle keeps all results: leave out --tar",
        ),
        (["--bundle", "{}/a.zip"], r"--bundle needs the folder of a study, a sweep or a run"),
        (["{}/optimizers/sgd/seed=0", "{}/optimizers/adam/seed=0"], r"same settings and seed; python report.py --comp"),
        (["{}/damaged"], r"study.json is damaged"),
        (["{}/optimizers", "--out", "{}/optimizers/study.json/x"], r"cannot write the report to"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    make_study(tmp_path / "optimizers", KNOWN)
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/study.json").write_text('{"rows": {"a": 3}}')
    assert main([argument.format(tmp_path) for argument in arguments] + ["--no-figures"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error)


def test_the_program(tmp_path: Path) -> None:
    study = make_study(tmp_path / "optimizers", KNOWN)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, ROOT / "report.py", *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
        )

    usage = call()
    assert (usage.returncode, usage.stderr) == (0, "")
    assert "python report.py --compare" in usage.stdout
    made = call("optimizers")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.splitlines()[-2:] == ["optimizers/report/report.html", "optimizers/report/report.md"]
    assert (study / "report/figures/comparison.png").read_bytes().startswith(b"\x89PNG")
    wrong = call("optimisers")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: no folder 'optimisers'; did you mean 'optimizers'?\n"


def test_report_does_not_import_torch() -> None:
    code = (
        "import sys; from convolt.reports.report import main; main([]); "
        "sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_rich_tables_show_brackets_as_they_are(tmp_path: Path) -> None:
    from rich.console import Console

    study = open_folder(make_study(tmp_path / "s", {"c=[bold]": {0: 0.5}}))[0]
    stream = io.StringIO()
    Console(file=stream, width=100).print(
        to_rich(study_tables.build_results(study, ACCURACY, analyze(study, ACCURACY)))
    )
    assert "c=[bold]" in stream.getvalue()


def test_unknown_metric_is_the_users_error(tmp_path: Path) -> None:
    study = open_folder(make_study(tmp_path / "s", {"a": {0: 0.5}}))[0]
    with pytest.raises(UserError, match="there are test/accuracy"):
        analyze(study, Metric("x"))
