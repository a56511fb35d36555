"""The quick start notebook runs from its first cell to its last, and no outputs are kept in it."""

import os
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


def test_no_outputs_are_kept():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is None and not cell.outputs for cell in code)


def test_every_cell_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("QUICKSTART_CLIPS", "10")
    monkeypatch.setenv("QUICKSTART_EPOCHS", "1")
    monkeypatch.setenv("QUICKSTART_IMAGE_SIZE", "64")
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    source = str(Path(__file__).parents[1] / "src")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert shown.count("image/png") == 3, "a spectrogram, the network's image and a confusion matrix"
    text = "".join(output.get("text", "") for output in outputs)
    assert "top-1" in text and "of 20 clips" in text
    assert any("<audio" in output.get("data", {}).get("text/html", "") for output in outputs)
    answer = outputs[-1]["data"]["text/plain"]
    assert "soundscape" in answer and "0.0" in answer
    assert (tmp_path / "runs" / "quickstart" / "train" / "weights" / "last.pt").is_file()
