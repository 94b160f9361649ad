"""Parallelism on GPUs: one process's overhead through NCCL, and two GPUs where there are two."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from profiler import numerics, ranks
from profiler.combo import Combo
from profiler.devices import link_of
from profiler.session import profile
from tests.support.two_ranks import CASES, Found, launch
from tests.support.unets import workload

pytestmark = pytest.mark.gpu


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one, ended after the test."""
    yield
    ranks.leave()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("parallelism", ["ddp", "fsdp2", "tensor"])
def test_one_process_is_done_and_projects_without_pretending(tmp_path: Path, parallelism: Any) -> None:
    ranks.leave()  # gloo's, of another test
    work = workload("tiny", mode="train", device="cuda", resolution=64)
    numerics.make_reference(work, tmp_path / "references" / work.reference_key, lambda stage, detail: None)
    combo = Combo(parallelism=parallelism, precision="bf16_amp", attention="sdpa", optimizer="adamw_fused")
    record = profile(combo, work, tmp_path / "run", run_id="run", references=tmp_path / "references")
    assert (record.status, record.cause) == ("done", "")
    (rank,) = record.ranks
    assert rank.communicated_bytes == 0
    assert rank.compute_ms > 0
    is_projected = parallelism != "tensor" and link_of(torch.cuda.get_device_name()) is not None
    assert [row.world_size for row in record.projection] == ([2, 4, 8] if is_projected else [])


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("parallelism", ["fsdp2", "tensor"])
def test_what_fp16_loses_is_counted_over_all_shards(tmp_path: Path, parallelism: Any) -> None:
    ranks.leave()
    work = workload("tiny", mode="train", device="cuda", resolution=64, curve_steps=3, min_seconds=0.5)
    combo = Combo(parallelism=parallelism, precision="fp16", attention="sdpa")
    record = profile(combo, work, tmp_path / "run", run_id="run", references=tmp_path / "references")
    assert record.status == "done", f"{record.cause}\n{record.traceback}"
    rows = pq.read_table(tmp_path / "run" / "curves.parquet").to_pylist()
    assert [row["y"] for row in rows if row["name"] == "nonfinite_gradients"] == [0, 0, 0]


@pytest.fixture(scope="module")
def two_gpus(tmp_path_factory: pytest.TempPathFactory) -> Found:
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs two GPUs, here is {torch.cuda.device_count()}")
    return launch(tmp_path_factory.mktemp("ranks"), "cuda")


@pytest.mark.parametrize("case", CASES)
def test_two_gpus_agree_with_one(case: str, two_gpus: Found) -> None:
    for found in (rank[case] for rank in two_gpus):
        assert found["errors"]["output_error"] <= 1e-4  # strict fp32: other batches take other algorithms of cuDNN
        assert (found["errors"]["gradient_error"] or 0.0) <= 1e-3
        assert found["evidence"]["parallelism"] == [True, ""]


@pytest.mark.parametrize("case", CASES)
def test_two_gpus_have_figures_of_their_own(case: str, two_gpus: Found) -> None:
    for rank in two_gpus:
        figures = rank[case]["figures"]
        assert figures["compute_ms"] > 0
        assert figures["communicated_bytes"] > 0
        assert 0 <= figures["wait_ms"] <= figures["exposed_communication_ms"]
