"""Tables as Parquet: small on disk, the same when read back."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from profiler.traces.attribute import Attribution
from profiler.traces.tables import kernel_table, op_table, write_table
from tests.support.traces import SDPA, recorded


@pytest.mark.parametrize(("make", "most_bytes_per_row"), [(kernel_table, 11.5), (op_table, 11)])
def test_a_table_is_small_and_reads_back_as_it_was(
    tmp_path: Path, make: Callable[[Attribution], pa.Table], most_bytes_per_row: float
) -> None:
    """Without differences a real trace's tables take 14 and 13 bytes a row."""
    table, file = make(recorded(SDPA)), tmp_path / "table.parquet"
    write_table(table, file)
    assert pq.read_table(file).equals(table, check_metadata=True)
    assert file.stat().st_size < most_bytes_per_row * len(table)


def test_a_table_has_no_statistics(tmp_path: Path) -> None:
    table, file = op_table(recorded(SDPA)).slice(0, 1), tmp_path / "table.parquet"
    write_table(table, file)
    group = pq.read_metadata(file).row_group(0)
    assert not any(group.column(number).is_stats_set for number in range(group.num_columns))
