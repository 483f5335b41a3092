"""The sentences on top of a report, for tables whose numbers are known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from convolt.reports.claims import make_claim
from convolt.reports.collect import open_folder
from convolt.reports.compare import describe_comparison, match_rows
from convolt.reports.decisions import Settling, VerdictRecord
from convolt.reports.formats import Metric
from convolt.reports.records import Row, RunRecord, State, StudyRecord
from convolt.reports.statistics import Difference, analyze
from convolt.reports.summary import describe_results, describe_search
from convolt.reports.words import agree, count_range, join_names
from decided_study import read, rewrite, write_search, write_study

ACCURACY, LOSS = Metric("test/accuracy"), Metric("test/loss")
ONLY_BASELINE = "Rows are compared with sgd only, not with each other."
SGD, ADAM, MOMENTUM = [0.60, 0.62, 0.64], [0.70, 0.73, 0.76], [0.65, 0.60, 0.67]
# adam - sgd: 0.10, 0.11, 0.12: mean 0.11 ± 0.024841, p = 0.0027435; momentum - sgd: 0.05, -0.02, 0.03: mean 0.02,
# s = 0.0360555, half = 4.302653 * 0.0360555 / √3 = 0.0895672; t = 0.960769, p = 1 - t / √(2 + t²) = 0.438041


def make_row(name: str, values: list[float | None], swept: str = "", metric: str = "test/accuracy", **more: Any) -> Row:
    """Make a row of runs with seeds from 0; None for one that is missing."""
    runs = []
    for seed, value in enumerate(values):
        state: State = "missing" if value is None else "finished"
        result = {} if value is None else {"metrics": {metric: value}}
        runs.append(RunRecord(Path(f"{name}{swept}/{seed}"), seed, state, result=result))
    full = ", ".join(filter(None, (name, swept)))
    return Row(full, name, swept, tuple(runs), **more)


def make_study(*rows: Row, baseline: str | None = "sgd", **more: Any) -> StudyRecord:
    return StudyRecord(Path("s"), "study", "s", "S", rows, baseline=baseline, **more)


def say(study: StudyRecord, metric: Metric = ACCURACY, **more: Any) -> list[str]:
    return describe_results(study, metric, analyze(study, metric), **more)


def test_rows_that_are_told_and_one_that_is_not() -> None:
    assert say(make_study(make_row("sgd", SGD), make_row("adam", ADAM), make_row("momentum", MOMENTUM))) == [
        "Test accuracy: adam beats sgd by 11.00 points [8.52, 13.48] (3 seeds, p = 0.005).",
        "momentum and sgd are not told apart by 3 seeds: +2.00 points [-6.96, 10.96] (p = 0.438).",
        f"Told: p < 0.05 after Holm's correction for 2 rows; brackets: 95% intervals over seeds. {ONLY_BASELINE}",
    ]


def test_a_row_that_loses_and_no_other() -> None:
    assert say(make_study(make_row("adam", ADAM), make_row("sgd", SGD), baseline="adam")) == [
        "Test accuracy: sgd loses to adam by 11.00 points [8.52, 13.48] (3 seeds, p = 0.003).",
        "Told: p < 0.05; brackets: 95% intervals over seeds.",
    ]


def test_no_row_is_told() -> None:
    rows = [make_row(f"m{i}", [value + i / 1000 for value in MOMENTUM]) for i in range(2)]
    assert (
        say(make_study(make_row("sgd", SGD), *rows))[0]
        == "Test accuracy: m0 and m1 are not told apart from sgd by 3 seeds."
    )
    rows += [make_row(f"n{i}", [value + i / 1000 for value in MOMENTUM]) for i in range(2)]
    assert (
        say(make_study(make_row("sgd", SGD), *rows))[0]
        == "Test accuracy: None of the 4 rows is told apart from sgd by 3 seeds."
    )


def test_a_small_loss_is_good_and_has_no_points() -> None:
    study = make_study(make_row("sgd", SGD, metric="test/loss"), make_row("adam", ADAM, metric="test/loss"))
    assert say(study, LOSS)[0] == "Test loss: adam loses to sgd by 0.1100 [0.0852, 0.1348] (3 seeds, p = 0.003)."
    study = replace(study, baseline="adam")
    assert say(study, LOSS)[0] == "Test loss: sgd beats adam by 0.1100 [0.0852, 0.1348] (3 seeds, p = 0.003)."
    assert (
        say(replace(study, baseline=None), LOSS)[0] == "sgd has the lowest mean test loss of 2 rows: 0.6200 (3 seeds)."
    )


def test_of_many_rows_the_first_is_named_with_its_numbers() -> None:
    rows = [make_row(f"r{i}", [value + i / 100 for value in ADAM]) for i in range(6)]
    sentences = say(make_study(make_row("sgd", SGD), *rows))
    assert sentences[0].startswith(
        "Test accuracy: 6 of 6 rows beat sgd: r5 by most, 16.00 points [13.52, 18.48] (3 seeds,"
    )
    assert sentences[0].endswith("; then r4, r3, r2 and 2 more.")
    assert len(sentences) == 2


def test_one_seed_each_is_no_claim() -> None:
    assert say(make_study(make_row("sgd", [0.6]), make_row("adam", [0.7]))) == [
        "adam has the highest test accuracy of 2 rows: 70.00% (1 seed).",
        "One seed each: no interval, no claim.",
    ]
    assert say(make_study(make_row("a", [0.7]), make_row("b", [0.7]), baseline=None))[0] == (
        "a and b have the highest test accuracy of 2 rows: 70.00% (1 seed)."
    )


def test_no_baseline_is_no_claim() -> None:
    rows = (make_row("sgd", SGD), make_row("adam", ADAM))
    best = "adam has the highest mean test accuracy of 2 rows: 73.00% (3 seeds)."
    assert say(make_study(*rows, baseline=None)) == [best, "There is no baseline, so nothing is tested: no claim."]
    missing = say(make_study(*rows, make_row("lars", [None]), baseline="lars"))
    assert missing[:2] == [best, "The baseline lars has no result here, so nothing is compared: no claim."]


def test_a_single_row() -> None:
    # t(0.975, 2) * 0.03 / √3 = 0.074524
    assert say(make_study(make_row("adam", ADAM), baseline=None)) == [
        "Test accuracy: 73.00% [65.55, 80.45], mean over 3 seeds; brackets: 95% interval over seeds."
    ]
    assert say(make_study(make_row("adam", [0.7]), baseline=None)) == [
        "Test accuracy: 70.00% in one run: no interval, no claim."
    ]
    assert say(make_study(make_row("adam", [None]), baseline=None)) == [
        "No run has a result yet.",
        "1 of 1 run is missing: adam.",
    ]


def test_p_values_do_not_hold_for_added_seeds() -> None:
    sentences = say(make_study(make_row("sgd", SGD), make_row("adam", ADAM)), seeds_added=True)
    assert sentences[1] == "Seeds were added after a report was made, so no p-value holds: no claim."
    assert not any("beats" in sentence or "[" in sentence for sentence in sentences)


def test_the_same_difference_in_every_seed_is_no_claim() -> None:
    sentences = say(make_study(make_row("sgd", [0.5, 0.625]), make_row("adam", [0.75, 0.875]), make_row("m", [0.5])))
    assert sentences[0] == (
        "Test accuracy: No claim about adam (+25.00 points; the same difference in every seed) and "
        "m (+0.00 points; one common seed)."
    )


def test_published_numbers_lie_inside_or_outside() -> None:
    def published(row: Row, value: float) -> Row:
        return replace(row, published={"test/accuracy": value})

    adam, sgd = make_row("adam", ADAM), make_row("sgd", SGD)
    assert "The 75.00% published for adam: inside the 95% interval of our mean [65.55, 80.45]." in say(
        make_study(sgd, published(adam, 0.75))
    )
    assert "The 81.00% published for adam: outside the 95% interval of our mean [65.55, 80.45]." in say(
        make_study(sgd, published(adam, 0.81))
    )
    assert "Published numbers and the 95% intervals of our means: 1 inside (sgd), 1 outside (adam)." in say(
        make_study(published(sgd, 0.62), published(adam, 0.81))
    )
    one = make_study(make_row("sgd", [0.6]), published(make_row("adam", [0.7]), 0.75))
    assert "Published for adam: 75.00%; ours: 70.00%; no claim." in say(one)


def test_runs_that_are_not_there() -> None:
    sgd, adam = make_row("sgd", [*SGD, None]), make_row("adam", [*ADAM, None])
    assert say(make_study(sgd, adam))[-1] == "2 of 8 runs are missing: sgd and adam."
    running = replace(adam, runs=(*adam.runs[:3], replace(adam.runs[3], state="running")))
    last = say(make_study(sgd, running))[-1]
    assert last == "2 of 8 runs are without a result (1 missing, 1 still running): sgd and adam."
    burst = replace(adam.runs[3], state="finished", result={"metrics": {}, "diverged": True})
    sentences = say(make_study(make_row("sgd", SGD), replace(adam, runs=(*adam.runs[:3], burst))))
    assert sentences[-1] == "1 of 7 runs diverged and is in no mean, which flatters adam."


def test_rows_that_were_not_made_alike() -> None:
    study = make_study(make_row("sgd", SGD), make_row("adam", ADAM))
    assert say(study, unlike=["adam"])[-1] == "adam was not made like the other rows; notes say how."


def test_swept_values_are_told_row_by_row() -> None:
    gains = {"optim.lr=0.1": ADAM, "optim.lr=0.01": [value - 0.01 for value in ADAM], "optim.lr=1": MOMENTUM}
    rows = [make_row("sgd", SGD, swept) for swept in gains]
    rows += [make_row("adam", values, swept) for swept, values in gains.items()]
    sentences = say(make_study(*rows))
    assert sentences == [
        "Test accuracy: adam beats sgd by 10.00 to 11.00 points at optim.lr=0.1 and optim.lr=0.01; is not told "
        "apart from sgd at optim.lr=1.",
        "Told: p < 0.05 after Holm's correction for 3 rows; brackets: 95% intervals over seeds.",
    ]


def test_one_swept_value_has_its_interval_and_what_is_told_comes_first() -> None:
    rows = [make_row("sgd", SGD, "x=1"), make_row("momentum", MOMENTUM, "x=1"), make_row("adam", ADAM, "x=1")]
    assert say(make_study(*rows))[:2] == [
        "Test accuracy: adam beats sgd by 11.00 points [8.52, 13.48] (3 seeds, p = 0.005) at x=1.",
        "momentum is not told apart from sgd at x=1.",
    ]


def test_many_swept_values_are_counted() -> None:
    rows = [make_row("sgd", SGD, f"x={i}") for i in range(5)]
    rows += [make_row(name, [0.70, 0.721, 0.742], f"x={i}") for name in ("a", "b", "c", "d") for i in range(5)]
    first, *_, more, _ = say(make_study(*rows))
    assert first == "Test accuracy: a beats sgd by 10.10 points at 5 of 5 values."
    assert more == "Of 1 more row, 5 of 5 differences are told."


def settle(study: StudyRecord, **verdicts: VerdictRecord) -> StudyRecord:
    by_row = {(name, ""): verdict for name, verdict in verdicts.items()}
    return replace(study, settling=Settling((3, 5), 0.05, 0.01, ACCURACY, len(by_row), (9.0, 5.0), by_row))


def test_every_verdict_of_a_settled_study() -> None:
    names = ("told", "worse", "same", "hopeless", "open", "new")
    study = make_study(make_row("sgd", SGD), *(make_row(name, ADAM) for name in names))
    study = settle(
        study,
        told=VerdictRecord("told", 3, 0.1, 0.05, 0.15),
        worse=VerdictRecord("told", 5, -0.1, -0.15, -0.05),
        same=VerdictRecord("negligible", 3, 0.001, -0.005, 0.007),
        hopeless=VerdictRecord("hopeless", 5, 0.01, -0.05, 0.07),
        open=VerdictRecord("open", 5, 0.01, -0.05, 0.07),
        new=VerdictRecord("undecided"),
    )
    assert say(study) == [
        "Test accuracy: told beats sgd by 10.00 points [5.00, 15.00] (3 seeds).",
        "worse loses to sgd by 10.00 points [5.00, 15.00] (5 seeds).",
        "same differs from sgd by less than 1.00 points: +0.10 points [-0.50, 0.70] (3 seeds).",
        "No claim about hopeless (+1.00 points [-5.00, 7.00]; stopped at 5 seeds, as more were unlikely to settle it), "
        "open (+1.00 points [-5.00, 7.00]; not settled by all 5 seeds planned) and new (before its first look).",
        f"Brackets: repeated intervals; the chance of any wrong claim is at most 5%. {ONLY_BASELINE}",
    ]
    text = " ".join(say(settle(study, told=VerdictRecord("excluded", reason="its dataset differs"))))
    assert "No claim about 6 rows: told, worse and 4 more." in text
    text = " ".join(
        say(settle(make_study(*study.rows[:2]), told=VerdictRecord("excluded", reason="it has other data")))
    )
    assert "No claim about told (left out: it has other data)." in text
    assert "p =" not in text


def test_only_one_metric_of_a_settled_study_is_judged() -> None:
    rows = (make_row("sgd", SGD, metric="test/loss"), make_row("adam", ADAM, metric="test/loss"))
    study = settle(make_study(*rows), adam=VerdictRecord("told", 3, 0.1, 0.05, 0.15))
    assert say(study, LOSS) == [
        "sgd has the lowest mean test loss of 2 rows: 0.6200 (3 seeds).",
        "Only test accuracy is judged in this study: no claim.",
    ]


def test_a_tuned_study(tmp_path: Path) -> None:
    study = open_folder(write_study(tmp_path / "s"))[0]
    sentences = say(study)
    assert sentences[0] == "Test accuracy: adam beats sgd by 10.10 points [9.16, 11.04] (3 seeds)."
    assert sentences[3:] == [
        "Each row is run at its own optim.lr and optim.nesterov, the best of 4 trials; momentum and adam chose the "
        "edge of what was tried, and better may lie beyond.",
        "At their defaults the rows would have stood in the same order (3 seeds, no claim).",
        "Published for adam: 75.00%; ours: 72.10%; no claim.",
    ]
    sgd, momentum, adam = study.rows
    better = tuple(replace(run, result={"metrics": {"test/accuracy": 0.9}}) for run in sgd.untuned)
    study = replace(study, rows=(replace(sgd, untuned=better), momentum, adam))
    assert "At their defaults the order would have been sgd, adam, momentum, best first (3 seeds, no claim)." in say(
        study
    )


def test_a_search(tmp_path: Path) -> None:
    study = open_folder(write_search(tmp_path / "s"))[0]
    assert describe_search(study) == [
        "Best of 4 finished trials: optim.lr=0.1 optim.nesterov=false, val accuracy 91.00% (2 seeds), not tested.",
        "The best of many scores flatters: only a run of this setting on test images says how good it is.",
        "1 of 4 trials diverged.",
    ]
    spec = read(tmp_path / "s")
    spec["tuning"]["cells"][0]["choice"]["edges"] = {"optim.lr": "high"}
    rewrite(tmp_path / "s", spec)
    assert "Its optim.lr is the highest tried: better may lie beyond." in describe_search(
        open_folder(tmp_path / "s")[0]
    )


def test_two_studies_are_compared_row_by_row() -> None:
    first, second = make_study(make_row("x", SGD)), make_study(make_row("x", ADAM))
    assert describe_comparison(match_rows(first, second), ACCURACY) == [
        "Test accuracy: x in B beats A by 11.00 points [8.52, 13.48] (3 seeds, p = 0.003).",
        "Told: p < 0.05; brackets: 95% intervals over seeds.",
    ]


def test_a_difference_is_told_by_its_corrected_p_value_alone() -> None:
    row = make_row("a", ADAM)
    found = Difference(0.1, 0.01, 0.19, 0.04, "paired", 3, p_holm=0.08)
    assert make_claim(row, found, ACCURACY).word == "not told"
    assert make_claim(row, replace(found, p_holm=0.049), ACCURACY).word == "beats"
    assert make_claim(row, replace(found, p_holm=0.049), LOSS).word == "loses"
    assert make_claim(row, replace(found, p_holm=0.049), ACCURACY, seeds_added=True).word == "none"


@pytest.mark.parametrize(
    ("names", "joined"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c"), ([*"abcd"], "a, b and 2 more")],
)
def test_names_are_joined(names: list[str], joined: str) -> None:
    assert join_names(names) == joined


def test_words_fit_their_number() -> None:
    assert [count_range(numbers, "seed") for numbers in ([], [0], [1], [3, 3], [5, 3])] == [
        *("", "", "1 seed", "3 seeds", "3 to 5 seeds")
    ]
    assert (agree(1, "is"), agree(2, "is"), agree(2, "differs")) == ("is", "are", "differ")
