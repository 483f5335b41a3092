#!/usr/bin/env bash
# Runs a study and writes its report; the process is train.py's own, so a signal or a kill reaches it and its runs.
# `convolt study` does the same where Convolt is installed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$here/.venv/bin/python
[ -x "$python" ] || python=python
case ${1:-} in
    '' | -h | --help) exec "$python" -m convolt study --help ;;
    -* | *=*) echo "error: $1: the name of a study comes first; ./multirun.sh lists them" >&2; exit 2 ;;
esac
exec "$python" "$here/train.py" "study=$1" hydra.sweeper.report=true "${@:2}"
