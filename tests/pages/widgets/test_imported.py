"""The recipe that the Import page prints is run as it is printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pages.widgets import imported
from runs import imports
from runs.history import read_record
from runs.job import run_folder

LOOP = """
import torch
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
batches = torch.ones({num_batches}, 4, 8)
def training_step(batch):
    model(batch).sum().backward()
"""
NUM_BATCHES = (5, 12)  # as many as it needs; and enough for a second cycle


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Where the recipe was run, by the number of batches; in one process, as to import torch takes most of it."""
    [recipe] = re.findall(r"```python\n(.*?)```", imported.HOW_TO, flags=re.DOTALL)
    found = {num_batches: tmp_path_factory.mktemp(f"of_{num_batches}") for num_batches in NUM_BATCHES}
    scripts = {str(folder): LOOP.format(num_batches=number) + recipe for number, folder in found.items()}
    each = f"import os\nfor folder, script in {scripts!r}.items(): os.chdir(folder); exec(script, {{}})"
    subprocess.run([sys.executable, "-c", each], check=True, timeout=120)
    return found


@pytest.mark.parametrize("num_batches", NUM_BATCHES)
def test_the_printed_recipe_leaves_three_steps_that_fill_every_view(
    num_batches: int, folders: dict[int, Path], tmp_path: Path
) -> None:
    found = imports.import_file(folders[num_batches] / "trace.json.gz", home=tmp_path)
    record = read_record(run_folder(found.run_id, tmp_path))
    assert record is not None
    assert record.imported is not None
    assert record.imported.num_steps == 3
    assert set(record.imported.why_empty) == {"gpu", "communication"}  # what one process on a CPU cannot have
