"""Measure what settling studies promise, without training: family-wise error, coverage, power and mean seeds.

    python scripts/simulate_settle.py                 a table in Markdown; an hour on one core
    python scripts/simulate_settle.py --studies 500   a rough one in minutes
    python scripts/simulate_settle.py --study outputs/studies/optimizers   with the noise of real runs

Each simulated study has a baseline and m rows, whose runs are drawn; paired differences have a standard deviation of 1,
so that differences and the margin are in that unit. With `--study`, seeds are drawn with replacement from the finished
ones of a real study, each for all rows at once as they were run, and each row's mean is taken away; differences are in
standard deviations of the row whose paired differences spread most. A verdict is wrong where "told" has no difference
or the wrong sign behind it, or "negligible" one of the margin or more.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from convolt.reports.collect import read_study
from convolt.reports.sequential import USUAL_LOOKS, Design, judge
from convolt.reports.statistics import holm

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Array]
"""Draws (rows, seeds) of noise; the first row is the baseline's."""

MARGIN = 1.0


def normal(generator: np.random.Generator, rows: int) -> Array:
    """Draw runs with normal noise."""
    return np.asarray(generator.standard_normal((rows, USUAL_LOOKS[-1])) / np.sqrt(2))


def skewed(generator: np.random.Generator, rows: int) -> Array:
    """Draw runs of which every row but the baseline has a long tail to bad values, as of seeds that nearly fail."""
    noise = 1 - generator.exponential(1.0, (rows, USUAL_LOOKS[-1]))
    noise[0] = 0
    return noise


def read_noise(study: Path) -> Array:
    """Read (rows, seeds) of noise from a study, the baseline first: the seeds that every row has finished."""
    record = read_study(study)
    rows = sorted(record.rows, key=lambda row: row.name != record.baseline)
    values = [row.values(record.headline) for row in rows]
    seeds = [seed for seed in values[0] if all(seed in row for row in values)]
    noise = np.array([[row[seed] for seed in seeds] for row in values])
    noise -= noise.mean(1, keepdims=True)
    return np.asarray(noise / (noise[1:] - noise[0]).std(1, ddof=1).max())


def resample(noise: Array) -> Draw:
    """Return what draws seeds with replacement from real ones."""

    def draw(generator: np.random.Generator, rows: int) -> Array:
        return noise[:rows, generator.integers(noise.shape[1], size=USUAL_LOOKS[-1])]

    return draw


@dataclass
class Scenario:
    """Studies of one kind.

    Attributes:
        name: What a reader calls it.
        differences: The true ones, by row; 0 for the baseline is added.
        draw: The noise of the runs.
    """

    name: str
    differences: Array
    draw: Draw = normal


def scenarios(m: int) -> list[Scenario]:
    """Return the kinds of studies with m rows beside the baseline."""
    half = np.where(np.arange(m) % 2 == 0, 0.0, 1.5)
    return [
        Scenario("no row differs", np.zeros(m)),
        Scenario("every other row differs by 1.5", half),
        Scenario("all rows differ by the margin", np.full(m, MARGIN)),
        Scenario("all rows differ by 2", np.full(m, 2.0)),
        Scenario("no row differs, skewed", np.zeros(m), skewed),
    ]


def real_scenarios(noise: Array) -> list[Scenario]:
    """Return the kinds of studies with the noise of real runs."""
    m, draw, seeds = len(noise) - 1, resample(noise), noise.shape[1]
    return [
        Scenario(f"no row differs, {seeds} real seeds", np.zeros(m), draw),
        Scenario(f"all rows differ by the margin, {seeds} real seeds", np.full(m, MARGIN), draw),
    ]


def simulate(scenario: Scenario, studies: int, seed: int = 0) -> str:
    """Run a scenario; return its line of the table."""
    m = len(scenario.differences)
    design = Design.plan(USUAL_LOOKS, 0.05, m, MARGIN)
    generator = np.random.default_rng([seed, m])
    wrong = covered = told = 0
    seeds = []
    for _ in range(studies):
        noise = scenario.draw(generator, m + 1)
        judgments = [
            judge(design, (true + noise[row + 1] - noise[0]).tolist()) for row, true in enumerate(scenario.differences)
        ]
        mistakes, inside = [], []
        for true, judgment in zip(scenario.differences, judgments, strict=True):
            assert judgment is not None
            mistakes.append(
                (judgment.verdict == "told" and (true == 0 or (judgment.mean > 0) != (true > 0)))
                or (judgment.verdict == "negligible" and abs(true) >= MARGIN)
            )
            inside.append(judgment.low <= true <= judgment.high)
            told += judgment.verdict == "told"
            seeds.append(judgment.n)
        wrong += any(mistakes)
        covered += all(inside)
    upper = stats.binomtest(wrong, studies).proportion_ci(0.98).high
    fixed = fixed_power(scenario, round(float(np.mean(seeds))), min(studies, 4000), seed)
    return (
        f"| {m} | {scenario.name} | {wrong / studies:.2%} | {upper:.2%} | {covered / studies:.2%} | "
        f"{np.mean(seeds):.1f} | {told / studies / m:.1%} | {fixed:.1%} |"
    )


def fixed_power(scenario: Scenario, n: int, studies: int, seed: int) -> float:
    """Return the share of rows that Holm-corrected paired t tests tell with n seeds for every row."""
    generator = np.random.default_rng([seed, 1])
    told = 0
    for _ in range(studies):
        noise = scenario.draw(generator, len(scenario.differences) + 1)[:, :n]
        x: Array = scenario.differences[:, None] + noise[1:] - noise[0]
        told += sum(p < 0.05 for p in holm(np.asarray(stats.ttest_1samp(x, 0, axis=1).pvalue).tolist()))
    return told / studies / len(scenario.differences)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000, help="of each line of the table")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 3, 10], help="beside the baseline")
    parser.add_argument("--study", type=Path, help="draw from the runs of this study, whose rows then count")
    arguments = parser.parse_args()
    print("| rows | studies in which | wrong | 99% bound | covered | mean seeds | told | told, fixed seeds |")
    print("|---|---|---|---|---|---|---|---|")
    groups = [real_scenarios(read_noise(arguments.study))] if arguments.study else map(scenarios, arguments.rows)
    for scenario in (one for group in groups for one in group):
        print(simulate(scenario, arguments.studies), flush=True)


if __name__ == "__main__":
    main()
