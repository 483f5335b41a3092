"""What a plan says a study will cost: finished runs first, then short ones; never a guess."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from convolt.config.settings import Settings
from convolt.errors import UserError
from convolt.runs.config_hash import config_hash
from convolt.sweeps import cost
from convolt.sweeps.cost import Cost, choose_seeds, estimate_costs
from convolt.sweeps.jobs import Job, State
from convolt.sweeps.measure import Measurement
from convolt.system.cores import name_processor
from convolt.system.files import add_digest
from convolt.training.run import run

GPU = "NVIDIA H100 80GB HBM3"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "list_gpu_names", list)


def job(settings: Any, folder: Path, *overrides: str) -> Job:
    name = "_".join(overrides)
    return Job(name, settings(*overrides), folder / name)


def finish(job: Job, seconds: float, **more: Any) -> None:
    result = {"config_hash": config_hash(job.cfg), "seconds": seconds, "threads": 2, "device": name_processor()}
    (job.run_dir / "checkpoints").mkdir(parents=True)
    (job.run_dir / "checkpoints" / "best.ckpt").write_bytes(bytes(1000))
    (job.run_dir / "predictions.npz").write_bytes(bytes(300))
    (job.run_dir / "result.json").write_text(json.dumps(add_digest(result | {"peak_memory_bytes": 7} | more)))


def in_this_process(jobs: Sequence[Job]) -> None:
    for each in jobs:
        each.result = run(each.cfg, each.run_dir)
        each.state = State.FINISHED


def refuse(jobs: Sequence[Job]) -> None:
    raise AssertionError("nothing is to be measured")


def test_finished_seeds_say_what_the_others_take(settings: Any, tmp_path: Path) -> None:
    jobs = [job(settings, tmp_path, f"optim={row}", f"seed={seed}") for row in ("sgd", "adam") for seed in (0, 1, 2)]
    finish(jobs[0], 10)
    finish(jobs[1], 20, peak_memory_bytes=9)
    costs = estimate_costs(jobs, measure=False)
    assert costs[3:] == [None] * 3
    size = sum((jobs[0].run_dir / name).stat().st_size for name in ("predictions.npz", "result.json"))
    assert costs[:3] == [Cost(15, 2, size, 1000, 9, "finished", name_processor(), runs=2)] * 3
    assert costs[0]
    assert costs[0].processor_seconds == 30
    finish(jobs[2], 60, cpu_seconds=21)  # others shared the machine
    costs = estimate_costs(jobs, measure=False)
    assert costs[0]
    assert (costs[0].seconds, costs[0].processor_seconds) == (30, 21)


def test_runs_of_other_settings_or_of_another_device_say_nothing(settings: Any, tmp_path: Path) -> None:
    jobs = [job(settings, tmp_path, "optim=sgd", f"seed={seed}") for seed in (0, 1)]
    finish(jobs[0], 10, device=GPU)
    assert estimate_costs(jobs, measure=False) == [None, None]
    jobs[0].hydra_cfg = OmegaConf.create({"hydra": {"runtime": {"choices": {"hydra/launcher": "slurm"}}}})
    on_cluster = estimate_costs(jobs, measure=False)[1]
    assert on_cluster
    assert (on_cluster.on_gpu, on_cluster.processor_seconds) == (True, 10)
    jobs[0] = replace(jobs[0], cfg=settings("optim=sgd", "trainer.max_epochs=9"))
    assert estimate_costs(jobs, measure=False) == [None, None]


def test_on_a_machine_with_a_gpu_its_runs_count_and_those_of_its_processor_do_not(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job(settings, tmp_path, "optim=sgd", f"seed={seed}") for seed in (0, 1, 2)]
    finish(jobs[0], 10, device=GPU)
    finish(jobs[1], 500)
    monkeypatch.setattr(cost, "list_gpu_names", lambda: [GPU])
    assert [each.seconds for each in estimate_costs(jobs, measure=False) if each] == [10] * 3


def test_trials_of_a_row_say_what_its_other_trials_take_and_nothing_of_its_runs(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "is_tested", lambda each: each.seed != 1000)
    rates = [("0.1", 1000), ("0.2", 1000), ("0.3", 1000), ("0.4", 0)]
    jobs = [job(settings, tmp_path, f"optim.lr={rate}", f"seed={seed}") for rate, seed in rates]
    finish(jobs[0], 10)
    finish(jobs[1], 20)
    found = estimate_costs(jobs, measure=False, cells=[("adam", ())] * 4)
    assert [each and each.seconds for each in found] == [10, 20, 15, None]


def test_one_run_of_each_row_is_measured_one_that_is_tested_and_trials_take_no_test(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def measure_runs(jobs: Sequence[Job], run_all: object) -> list[Measurement | None]:
        asked.extend(each.name for each in jobs)
        found = Measurement(1, 10, 5, 2, name_processor(), 70, 300, 1000, 40, cores=1.5)
        return [found if "sgd" in each.name else None for each in jobs]

    monkeypatch.setattr(cost, "measure_runs", measure_runs)
    monkeypatch.setattr(cost, "is_tested", lambda each: each.seed != 1000)
    pairs = [(row, seed) for row in ("sgd", "adam") for seed in (1000, 0, 1)]
    jobs = [job(settings, tmp_path, f"optim={row}", f"seed={seed}") for row, seed in pairs]
    costs = estimate_costs(jobs, measure=True, cells=[row for row, _ in pairs], run_all=refuse)
    assert asked == ["optim=sgd_seed=0", "optim=adam_seed=0"]
    assert costs[:2] == [
        Cost(21, 2, 300, 0, 70, "measured", name_processor(), cpu_seconds=1.5 * 21),
        Cost(26, 2, 340, 1000, 70, "measured", name_processor(), cpu_seconds=1.5 * 26),
    ]
    assert costs[3:] == [None] * 3


def test_places_that_would_stay_empty_measure_more_of_a_row() -> None:
    cells, tested = ["a", "a", "a", "b", "b"], [False, True, True, True, True]
    chosen = [cost._choose_measured(range(5), cells, tested, places) for places in (1, 3, 4, 64)]
    assert chosen == [[1, 3], [1, 3], [1, 2, 3, 4], [1, 2, 3, 4]]


def test_a_measured_run_takes_about_what_was_measured(settings: Any, tmp_path: Path) -> None:
    whole = job(settings, tmp_path, "trainer.max_epochs=6", "data.batch_size=64")
    before = config_hash(whole.cfg)
    (measured,) = estimate_costs([whole], measure=True, run_all=in_this_process)
    assert not whole.run_dir.exists()
    assert config_hash(whole.cfg) == before
    in_this_process([whole])
    (finished,) = estimate_costs([whole], measure=True, run_all=refuse)
    assert measured
    assert finished
    assert (measured.source, finished.source) == ("measured", "finished")
    assert finished.seconds / 3 < measured.seconds < 3 * finished.seconds
    assert (measured.threads, measured.device) == (finished.threads, finished.device)
    assert measured.disk_bytes == pytest.approx(finished.disk_bytes, rel=0.2)
    assert measured.checkpoint_bytes == pytest.approx(finished.checkpoint_bytes, rel=0.1)


def test_short_runs_are_short(settings: Any, tmp_path: Path) -> None:
    sizes = []

    def run_all(jobs: Sequence[Job]) -> None:
        for each in jobs:
            debug = Settings.of(each.cfg).debug
            sizes.append((debug.limit_batches, debug.epochs))
            each.state, each.reason = State.FAILED, "out of memory"

    jobs = [job(settings, tmp_path, f"seed={seed}", "debug.limit_batches=1") for seed in (0, 1)]
    assert estimate_costs(jobs, measure=True, run_all=run_all) == [None, None]
    assert sizes == [(1, 2)]


def test_as_many_seeds_as_fit_are_chosen() -> None:
    assert choose_seeds(8, 3600, 0, 1) == 8
    assert choose_seeds(8, 3600, 7200, 2) == 14
    assert choose_seeds(0.1, 90, 0, 1) == 4


def test_hours_in_which_nothing_fits_are_refused() -> None:
    with pytest.raises(UserError) as error:
        choose_seeds(1, 2 * 3600, 0, 1)
    assert str(error.value) == (
        "hydra.sweeper.max_hours=1 is too little: each seed of all rows takes 2.0 h here: "
        "set 2 or more for one seed, or fewer epochs or rows"
    )
    with pytest.raises(UserError) as error:
        choose_seeds(1, 3600, 11000, 2)
    assert str(error.value) == (
        "hydra.sweeper.max_hours=1 is too little: tuning takes 1.5 h and each seed of all rows 30.0 min here: "
        "set 2.1 or more for one seed, or fewer epochs, trials or rows"
    )
    with pytest.raises(UserError) as error:
        choose_seeds(1, None, 0, 1)
    assert str(error.value) == (
        "hydra.sweeper.max_hours=1: what a run takes is not known before one of each row has finished: "
        "add hydra.sweeper.measure=true"
    )
