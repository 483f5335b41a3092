"""Studies and plain sweeps: which runs they stand for, and what is refused before anything runs."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from convolt.errors import UserError
from convolt.sweeps.study import (
    CommandLine,
    PlannedRun,
    folder_name,
    parse_command_line,
    plan_plain_sweep,
    read_study,
)
from convolt.sweeps.study_plan import StudyPlan
from convolt.sweeps.sweep import changed_rows

ROOT = Path(__file__).resolve().parents[2]

PAGE: dict[str, Any] = {
    "title": "Rates",
    "question": "Which?",
    "base": ["model=lenet", "trainer.max_epochs=9", "optim=sgd"],
    "seeds": [0, 1],
    "runs": {
        "slow": {"overrides": ["optim.lr=0.01"], "published": {"test/accuracy": 0.5, "source": "a report"}},
        0.1: {"overrides": ["optim.lr=0.1", "trainer.max_epochs=5"]},
    },
}


def plan_of(*typed: str) -> StudyPlan:
    return StudyPlan.of(read_study(PAGE, "rates"), "rates", parse_command_line(typed))


def jobs_of(*typed: str) -> list[PlannedRun]:
    plan = plan_of(*typed)
    return [plan.run(run) for run in plan.schedule.runs(lambda _: None)]


def record_of(*typed: str) -> Any:
    plan = plan_of(*typed)
    record = plan.record(plan.schedule.runs(lambda _: None), lambda _: None, None)
    return json.loads(json.dumps(record))


def test_rows_are_multiplied_by_seeds_and_all_rows_of_a_seed_come_first() -> None:
    jobs = jobs_of()
    assert [job.folder for job in jobs] == ["slow/seed=0", "0.1/seed=0", "slow/seed=1", "0.1/seed=1"]
    assert [(job.row, job.seed) for job in jobs][:2] == [("slow", 0), ("0.1", 0)]


def test_the_command_line_beats_the_row_which_beats_the_base() -> None:
    slow, fast, *_ = jobs_of("model=resnet18", "data=mnist")
    assert slow.overrides == (
        "model=resnet18",
        "trainer.max_epochs=9",
        "optim=sgd",
        "optim.lr=0.01",
        "data=mnist",
        "seed=0",
    )
    assert "trainer.max_epochs=5" in fast.overrides
    assert "trainer.max_epochs=9" not in fast.overrides


def test_runs_after_a_rows_first_seed_draw_light_pictures_unless_something_is_said_of_them() -> None:
    light = "pictures.detail=light"
    assert [job.seed for job in jobs_of("optim.momentum=0,0.9") if light not in job.overrides] == [0, 0, 0, 0]
    assert {job.seed for job in jobs_of("seed=7,3") if light not in job.overrides} == {7}
    assert not any(light in job.overrides for job in jobs_of("pictures.detail=full"))
    assert not any(light in job.overrides for job in jobs_of("pictures.tsne=true"))
    assert [job.folder for job in jobs_of("pictures.detail=full")] == [job.folder for job in jobs_of()]


def test_swept_overrides_multiply_and_seeds_replace_the_studys() -> None:
    jobs = jobs_of("data.batch_size=32,64", "seed=range(3,6)", "augmentation=[flip,shift]")
    assert len(jobs) == 2 * 2 * 3
    assert {job.seed for job in jobs} == {3, 4, 5}
    assert jobs[1].folder == "slow/seed=3,data.batch_size=64"
    assert jobs[1].swept == ("data.batch_size=64",)
    assert all("augmentation=[flip,shift]" in job.overrides for job in jobs)
    assert [job.seed for job in jobs_of("seed=7")] == [7, 7]


def test_rows_that_there_are_not_are_refused() -> None:
    plan_of().check_rows(["0.1", "slow"])
    with pytest.raises(UserError, match=r"study rates has no row 'slwo'; did you mean 'slow'\?"):
        plan_of().check_rows(["0.1", "slwo"])


def test_the_folder_is_named_for_what_changes_numbers() -> None:
    typed = ["study=rates", "seed=1,2", "data.root=/a/b", "trainer.threads=3", "force=true", "optim.momentum=0.8,0.9"]
    assert folder_name("rates", parse_command_line(typed)) == "rates"
    one = folder_name("rates", parse_command_line([*typed, "model=agrawal2020/lenet", "data=mnist"]))
    assert one == folder_name("rates", parse_command_line(["data=mnist", "model=agrawal2020/lenet"]))
    assert one == "rates,data=mnist,model=agrawal2020-lenet"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["optim.lr=1"], "optim.lr=1: the rows of study rates differ in optim.lr"),
        (["optim.lr=1,2"], "optim.lr=1,optim.lr=2: the rows"),
        (["study=rates,depth"], "one study at a time"),
        (["seed=-1"], "seed=-1 will not do"),
        (["model=a/b,a-b"], "would share the folder slow/seed=0,model=a-b"),
    ],
)
def test_what_contradicts_a_study_is_refused(typed: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        jobs_of(*typed)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedes": [1]}, "no key sedes; did you mean 'seeds'"),
        ({"baseline": "slwo"}, "the baseline 'slwo' is no row of it; did you mean 'slow'"),
        ({"runs": {}}, "runs"),
        ({"seeds": ["a"]}, "seeds.0"),
        ({"runs": {"a": {"override": []}}}, "no key runs.a.override; did you mean 'overrides'"),
        ({"runs": {"a": {"overrides": ["optim.lr=1,2"]}}}, "row 'a': optim.lr=1,2: a row has one value"),
        ({"runs": {"a": {"overrides": ["seed=1"]}}}, "row 'a': seed=1: see `seeds`"),
        ({"runs": {"a": {"overrides": ["hydra.launcher.n_jobs=1"]}}}, "not in a study"),
        ({"base": ["model=a", "model=b"]}, "base: model stands there twice"),
    ],
)
def test_a_mistake_on_a_page_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        StudyPlan.of(read_study(PAGE | change, "rates"), "rates", CommandLine())
    assert str(error.value).startswith("study rates")
    assert message in str(error.value)


def test_published_numbers_stand_beside_runs_of_their_settings_alone() -> None:
    def told(*typed: str) -> tuple[Any, list[str]]:
        content = record_of(*typed)
        return content["rows"]["slow"]["published"], content["notes"]

    published = PAGE["runs"]["slow"]["published"]
    assert told("seed=0,1,2,3", "data.root=/x", "trainer=cpu", "data.val_fraction=0.1") == (published, [])
    assert told("data=mnist") == (None, ["no published numbers: they are of other settings than data=mnist"])
    assert told("data.batch_size=32,64")[0] is None
    assert told("trainer.gradient_clip_val=1")[0] is None


def test_study_json_tells_what_is_to_be() -> None:
    content = record_of("data.split_seed=3", "trainer.precision=32-true,bf16-mixed")
    rows = content.pop("rows")
    assert content == {
        "name": "rates",
        "title": "Rates",
        "question": "Which?",
        "base": PAGE["base"],
        "baseline": "slow",
        "seeds": [0, 1],
        "overrides": ["data.split_seed=3"],
        "sweep": {"trainer.precision": ["32-true", "bf16-mixed"]},
        "notes": [],
    }
    assert rows["slow"]["published"] == PAGE["runs"]["slow"]["published"]
    assert rows["0.1"]["published"] is None
    assert len(rows["0.1"]["runs"]) == 4
    assert rows["slow"]["runs"][1] == {
        "dir": "slow/seed=0,trainer.precision=bf16-mixed",
        "seed": 0,
        "overrides": ["trainer.precision=bf16-mixed"],
    }


def test_a_plain_sweep_is_the_product_in_the_order_typed() -> None:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        jobs = plan_plain_sweep(["seed=0,1", "data=mnist", "optim=glob(sgd*)", "optim.lr=choice(1,2)"], loader)
    assert [job.overrides for job in jobs] == [
        (f"seed={seed}", "data=mnist", "optim=sgd", f"optim.lr={lr}") for seed in (0, 1) for lr in (1, 2)
    ]
    assert {job.folder for job in jobs} == {None}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("study=optimisers", "did you mean 'optimizers'"),
        ("-m study=optimizers,depth", "one study at a time"),
        ("study=optimizers optim=adam", "the rows of study optimizers differ in optim"),
        ("study=optimizers --cfg job", "dry_run=true"),
        ("study=optimizers model=resnet81", "did you mean 'resnet18'"),
        ("study=optimizers trainer.max_epochs=abc", "row 'sgd': trainer.max_epochs=abc"),
        ("study=optimizers optim.lr=0.1", "optim.lr=0.1: study optimizers tunes optim.lr; leave it out, or set"),
        ("study=batchnorm_placement batchnorm.placement=none", "the same run under two names"),
        ("study=optimizers trainer=ddp", "one device"),
        ("study=optimizers hydra.launcher.on_error=sotp", "did you mean 'stop'"),
        ("-m model=lenet,resnet81", "did you mean 'resnet18'"),
        ("-m seed=0,a", "seed=a will not do"),
        ("-m trainer.threads=1,2", "would share the folder"),
    ],
)
def test_mistakes_are_told_in_a_line_before_anything_starts(
    answer: Any, tmp_path: Path, typed: str, message: str
) -> None:
    status, said = answer(f"{typed} data.root={tmp_path / 'data'}")
    assert status == 2, said
    assert message in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_option_in_a_row_names_the_row(answer: Any, tmp_path: Path) -> None:
    study = tmp_path / "extra/study/mine.yaml"
    study.parent.mkdir(parents=True)
    study.write_text(
        "# @package hydra.sweeper.study\ntitle: Mine\nruns:\n"
        "  good: {overrides: [optim=sgd]}\n  bad: {overrides: [optim=adamm]}\n"
    )
    status, said = answer(f"study=mine hydra.searchpath=[file://{tmp_path / 'extra'}]")
    assert status == 2
    assert said.startswith("error: study mine, row 'bad': optim=adamm: there is no such optim; did you mean")
    assert not (tmp_path / "outputs").exists()


def test_a_dry_run_lists_and_a_study_runs_and_reports(command_here: Any, tmp_path: Path) -> None:
    typed = ["study=optimizers", "hydra.sweeper.tune=null", "model=lenet", "data=digits", "debug=smoke", "seed=0,1"]
    name = "outputs/studies/optimizers,tune=null,data=digits,debug=smoke,model=lenet"
    done = command_here(*typed, "hydra.sweeper.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "6 runs: 6 missing" in done.stdout
    assert done.stdout.splitlines()[-1] == name
    assert not (tmp_path / "outputs").exists()

    done = command_here(*typed, "hydra.sweeper.report=true", "data.train_size=400")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / done.stdout.splitlines()[-1]
    assert folder.name == "optimizers,tune=null,data=digits,data.train_size=400,debug=smoke,model=lenet"
    assert (folder / "report/report.html").exists()
    content = json.loads((folder / "study.json").read_text())
    for row in content["rows"].values():
        assert len(row["runs"]) == 2
        for run in row["runs"]:
            result = json.loads((folder / run["dir"] / "result.json").read_text())
            assert result["seed"] == run["seed"]
            assert result["slots"] >= 1
            assert (folder / run["dir"] / "output.log").read_text().count("epoch 1/1") == 1

    done = command_here(*typed, "data.train_size=400", "hydra.sweeper.dry_run=true")
    assert "6 runs: 6 done" in done.stdout


def test_failed_runs_are_listed_and_the_exit_status_tells(command_here: Any, tmp_path: Path) -> None:
    done = command_here("-m", "data.train_size=500,100000", "debug=smoke")
    assert done.returncode == 1, done.stderr
    assert "1 of 2 runs finished" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("data.train_size=100000"))
    assert "data.train_size" in line.split(maxsplit=1)[1]
    sweep = tmp_path / done.stdout.splitlines()[-1]
    assert json.loads((sweep / "data.train_size=100000,debug=smoke/status.json").read_text())["state"] == "failed"
    assert (sweep / "data.train_size=500,debug=smoke/result.json").exists()
    assert (sweep / "multirun.yaml").exists()


def test_hydras_own_launcher_still_serves(command_here: Any, tmp_path: Path) -> None:
    done = command_here("-m", "data.train_size=500,100000", "debug=smoke", "hydra/launcher=basic")
    assert done.returncode == 1
    assert "1 of 2 runs finished" in done.stdout


def test_multirun_sh_lists_the_studies_and_runs_nothing_without_a_name(tmp_path: Path) -> None:
    def call(*typed: str) -> Any:
        return subprocess.run([ROOT / "multirun.sh", *typed], cwd=tmp_path, capture_output=True, text=True, check=False)

    done = call()
    assert done.returncode == 0
    assert "STUDY [OVERRIDES...]" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("  optimizers "))
    assert line.split(maxsplit=1)[1] == "SGD, momentum and Adam"
    assert call("data=mnist").returncode == 2
    assert not list(tmp_path.iterdir())


def test_a_study_that_was_edited_half_way_names_the_rows_that_changed() -> None:
    now = {"base": ["seed=0"], "rows": {"a": {"overrides": ["optim=sgd"]}, "b": {"overrides": ["optim=adam"]}}}
    assert changed_rows(None, now) == changed_rows({"rows": 3}, now) == changed_rows(now, now) == []
    assert changed_rows(now | {"base": []}, now) == ["a", "b"]
    before = {"base": ["seed=0"], "rows": {"a": {"overrides": ["optim=sgd"]}, "c": {"overrides": ["optim=adam"]}}}
    assert changed_rows(before, now) == ["b", "c"]
