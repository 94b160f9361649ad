"""Scaling: ranks put together, and projections that say that they are none."""

import pytest

from profiler.measure import Timing
from profiler.record import Evidence
from profiler.scaling import fullest, merge_energy, merge_evidence, project, slowest
from profiler.telemetry import Energy
from profiler.workload import Workload

DDP = Evidence(family="parallelism", choice="ddp", facts={"gradient_bytes": 4 * 10**9})


def test_the_slowest_rank_sets_the_time() -> None:
    timings = [Timing(step_ms=times, phase_ms={}, host_enqueue_ms=()) for times in ((1.0, 9.0, 1.0), (2.0, 2.0, 2.0))]
    assert slowest(timings) is timings[1]


def test_a_finding_of_any_rank_counts_and_names_it() -> None:
    fine = Evidence(family="attention", choice="sdpa", confirmed=True)
    bad = Evidence(family="attention", choice="sdpa", confirmed=False, finding="the trace shows no flash")
    (merged,) = merge_evidence([(fine,), (bad,)])
    assert (merged.confirmed, merged.finding) == (False, "rank 1: the trace shows no flash")
    assert merge_evidence([(fine,), (fine,)]) == (fine,)


def test_energy_is_of_all_and_unknown_if_one_is() -> None:
    both = merge_energy([Energy(step_energy_j=1.0, max_temperature_c=60.0), Energy(step_energy_j=2.0)])
    assert (both.step_energy_j, both.max_temperature_c) == (3.0, None)


def test_memory_is_of_the_fullest_rank() -> None:
    found = fullest(
        [{"peak_allocated_gib": 1.0, "weights_gib": 0.5}, {"peak_allocated_gib": 3.0, "weights_gib": 0.7}], 8
    )
    assert found == {"peak_allocated_gib": 3.0, "weights_gib": 0.7, "samples_per_s_per_gib": 2.0}


def test_a_projection_is_arithmetic_that_names_its_assumptions() -> None:
    rows = project(DDP, Workload(batch=16, mode="train"), 100.0, "NVIDIA H200")
    assert [row.world_size for row in rows] == [2, 4, 8]
    assert [row.batch for row in rows] == [32, 64, 128]
    assert [row.sent_bytes for row in rows] == [4 * 10**9, 6 * 10**9, 7 * 10**9]
    assert rows[0].communication_ms == pytest.approx(4e9 / (450e9 * 0.89) * 1e3, rel=1e-3)
    assert (rows[0].step_ms_hidden, rows[0].step_ms_exposed) == (100.0, 100.0 + rows[0].communication_ms)
    assert all("projected, not measured" in row.assumptions and "NVLink 4" in row.assumptions for row in rows)


@pytest.mark.parametrize(
    ("evidence", "world_size", "gpu"),
    [(DDP, 2, "NVIDIA H200"), (DDP, 1, None), (Evidence(family="parallelism", choice="tensor"), 1, "NVIDIA H200")],
)
def test_nothing_is_projected_from_more_than_is_known(evidence: Evidence, world_size: int, gpu: str | None) -> None:
    assert project(evidence, Workload(mode="train", world_size=world_size), 100.0, gpu) == ()
