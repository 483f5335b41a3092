#!/usr/bin/env bash
# Runs a study and writes its report; the process is train.py's own, so a signal or a kill reaches it and its runs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'END'
./multirun.sh STUDY [OVERRIDES...]          runs what is missing of a study, then writes its report

  ./multirun.sh optimizers data=mnist seed=0,1,2          further overrides apply to every row
  ./multirun.sh optimizers optim.weight_decay=0,5e-4      swept ones multiply
  ./multirun.sh optimizers hydra.sweeper.tune=null        at the options' own rates, not tuned
  ./multirun.sh optimizers hydra.sweeper.settle=true      seeds until each difference is settled
  ./multirun.sh optimizers hydra.sweeper.dry_run=true     lists what would run, and how far it is
  ./multirun.sh optimizers 'hydra.sweeper.rows=[sgd,adam]'   these rows alone; the report lists the others as missing
  ./multirun.sh optimizers hydra.sweeper.have=study.zip   takes finished runs from a bundle (report.py STUDY --bundle)
  ./multirun.sh optimizers hydra.launcher.n_jobs=4        runs at a time (jobs_per_gpu, retries, timeout, on_error)

The same command goes on where it was cut off. Exit status: 0 when every run finished, 1 when some did not, 2 for a
mistake, 130 or 143 when interrupted.

Studies (conf/study):
END
    for page in "$here"/conf/study/*.yaml; do
        printf '  %-32s %s\n' "$(basename "$page" .yaml)" "$(sed -n 's/^title: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$page")"
    done
}

case ${1:-} in
    '' | -h | --help) usage; exit 0 ;;
    -* | *=*) echo "error: $1: the name of a study comes first; ./multirun.sh lists them" >&2; exit 2 ;;
esac
python=$here/.venv/bin/python
[ -x "$python" ] || python=python
exec "$python" "$here/train.py" "study=$1" hydra.sweeper.report=true "${@:2}"
