"""The notebook from top to bottom, and one process in which many runs leave nothing behind."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples/convolt.ipynb"

LEAKS = """
import gc, logging, os, signal, threading, warnings
from convolt import train

def state():
    gc.collect()
    names = [None, "convolt", "hydra", "pytorch_lightning", "lightning_fabric", "py.warnings"]
    handlers = [len(logging.getLogger(name).handlers) for name in names]
    signals = [signal.getsignal(number) for number in (2, 15)]
    files = len(os.listdir("/proc/self/fd"))
    return [handlers, signals, files, threading.active_count(), warnings.showwarning, len(warnings.filters)]

for number in range(10):
    train("trainer.threads=1", "trainer.max_epochs=1", "pictures.enabled=false", "data.train_size=99", f"seed={number}")
    if number == 1:
        before = state()
    if number in (1, 9):
        print("RSS", int(open("/proc/self/statm").read().split()[1]))
assert state() == before, (before, state())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the memory of a process")
def test_ten_runs_in_one_process_leave_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAKS], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    two, ten = (int(pages) for pages in re.findall(r"RSS (\d+)", done.stdout))
    assert ten < 1.05 * two


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    shutil.copy(NOTEBOOK, tmp_path)
    notebook = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # it is kept without them
    assert "%pip install -q convolt" in notebook.cells[1].source
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert "\\u001b" not in nbformat.writes(notebook)  # no escape codes
    for source, found in outputs.items():
        texts = "".join(each.get("text", "") for each in found)
        assert len(found) <= 6, source
        assert texts.count("\n") <= 2, texts

    def outcome(beginning: str) -> str:
        found = next(found for source, found in outputs.items() if beginning in source)
        return str(found[-1]["data"]["text/plain"])

    def lines(beginning: str) -> list[str]:
        found = next(found for source, found in outputs.items() if beginning in source)
        return [each["data"]["text/plain"] for each in found if each.output_type == "display_data"]

    (accuracy,) = re.findall(r"finished, test/accuracy (\d\.\d{4})", outcome("run = train"))
    assert float(accuracy) > 0.9
    assert lines("run = train")[0].startswith(f"test/accuracy {accuracy}, 4 epochs, ")
    assert [line.partition(",")[2][:10] for line in lines("for rate in")] == [" 4 epochs,"] * 4
    assert "optim.lr=0.003" in outcome("for rate in")
    assert "6 finished" in outcome("study(")
    assert lines("study(") == [
        "6 of 6 runs finished, outputs/studies/optimizers,tune=null,data=digits,model=lenet,trainer.max_epochs=4"
    ]
    assert [*(tmp_path / "outputs/studies").rglob("report.html")]
    images = [each["data"] for found in outputs.values() for each in found if "image/png" in each.get("data", {})]
    assert len(images) == 4
