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


@pytest.mark.parametrize("num_batches", [5, 12])  # as many as it needs; and enough for a second cycle
def test_the_printed_recipe_leaves_three_steps_that_fill_every_view(num_batches: int, tmp_path: Path) -> None:
    [recipe] = re.findall(r"```python\n(.*?)```", imported.HOW_TO, flags=re.DOTALL)
    script = LOOP.format(num_batches=num_batches) + recipe
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=120)
    found = imports.import_file(tmp_path / "trace.json.gz", home=tmp_path / "home")
    record = read_record(run_folder(found.run_id, tmp_path / "home"))
    assert record is not None
    assert record.imported is not None
    assert record.imported.num_steps == 3
    assert set(record.imported.why_empty) == {"gpu", "communication"}  # what one process on a CPU cannot have
