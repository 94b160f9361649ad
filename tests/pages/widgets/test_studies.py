"""Which study a page opens on."""

import pandas as pd

from pages.widgets.studies import best_first
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
