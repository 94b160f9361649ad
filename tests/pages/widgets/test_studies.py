"""Which study a page opens on."""

import pandas as pd
import pytest

from pages.widgets.studies import best_first, in_common
from profiler.workload import Workload
from store.labels import SINGLE_RUNS


def test_own_sweeps_come_first_then_recorded_ladders_inference_before_training() -> None:
    newest_first = {
        SINGLE_RUNS: ("", False),
        "of-scaling": ("scaling_batch", True),
        "of-training": ("ladder_train", True),
        "of-inference": ("ladder_inference", True),
        "own-training": ("ladder_train", False),
        "own": ("quick", False),
    }
    sweeps = pd.DataFrame(
        {"sweep_id": sweep_id, "sweep_name": name, "is_recorded": is_recorded}
        for sweep_id, (name, is_recorded) in newest_first.items()
    )
    found = best_first(sweeps)["sweep_id"].tolist()
    assert found == ["own-training", "own", "of-inference", "of-training", "of-scaling", SINGLE_RUNS]


@pytest.mark.parametrize(
    ("workloads", "says"),
    [
        ([Workload(batch=2)], "tiny inference b2 128 px cuda"),
        ([Workload(model="sd15", batch=batch) for batch in (1, 16, 2)], "sd15 inference, 3 batches"),
        ([Workload(mode="train", resolution=side) for side in (128, 256)], "tiny train b2, 2 resolutions"),
        ([Workload(model=model) for model in ("tiny", "sd15", "sdxl")], "inference b2, 3 models"),
        ([Workload(), Workload(model="sd15", mode="train", batch=4)], "2 models, 2 modes, 2 batches"),
        ([Workload(), Workload(device="cpu")], "tiny inference b2, 2 devices"),
        ([Workload(model="/my own/unet b2", batch=batch) for batch in (1, 2)], "unet b2 inference, 2 batches"),
    ],
)
def test_a_study_of_many_workloads_is_named_by_what_they_have_in_common(workloads: list[Workload], says: str) -> None:
    columns = ("model_label", "mode", "batch", "resolution", "device")
    rows = [{name: getattr(one, name) for name in columns} | {"workload_label": one.label} for one in workloads]
    assert in_common(pd.DataFrame(rows)) == says
