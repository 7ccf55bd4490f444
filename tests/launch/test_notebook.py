"""The notebook, cell by cell."""

import json
import re
import subprocess
import sys

import pytest

from tests.runs import ROOT, environment


@pytest.mark.slow
def test_the_notebook_runs(compile_cache, tmp_path):
    """Catches: a cell that uses what an earlier one no longer defines, a setting that has another name."""
    notebook = json.loads((ROOT / "launch/notebook.ipynb").read_text())
    assert notebook["nbformat"] == 4 and all(not cell.get("outputs") for cell in notebook["cells"])
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    few = "QUESTIONS, HELD_OUT, PATHS, STEPS = 12, 8, 4, 3"
    code, replaced = re.subn(r"QUESTIONS, HELD_OUT, PATHS, STEPS = .*", few, code)
    assert replaced == 1
    environ = environment(compile_cache) | {"MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"cot: [\d.]+% to [\d.]+%, n = 8", done.stdout), done.stdout
    assert (tmp_path / "runs/notebook/round-1/config.json").exists()
