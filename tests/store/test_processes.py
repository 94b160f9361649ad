"""Several processes on one store: nothing is lost, nobody sees half a sync."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from store import db, frames
from store.db import StoreError
from store.ingest import sync
from tests.support.run_folders import write_run

REPOSITORY = Path(__file__).parents[2]
SYNCS = """
import sys, time
from pathlib import Path
from store.ingest import sync
print("begins", flush=True)
while not Path(sys.argv[1]).exists():
    sync()
    time.sleep(0.01)
"""
READS = """
import sys
from pathlib import Path
from store import frames
last = num = 0
print("begins", flush=True)
while num < 4 or not Path(sys.argv[1]).exists():
    runs = frames.runs()
    runs = runs[runs["run_id"].str.startswith("r")]  # this test's; the recorded studies are in the index too
    samples = frames.samples(runs["run_id"].tolist())
    assert len(runs) >= last, (len(runs), last)
    assert len(samples) == 20 * len(runs), (len(samples), len(runs))
    last, num = len(runs), num + 1
"""
REBUILDS = """
from store.ingest import sync
print("begins", flush=True)
while True:
    sync(rebuild=True)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def await_beginning(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_two_processes_sync_while_others_read(root: Path, database: Path, tmp_path: Path) -> None:
    write_run(root, run_id="r000", parquet=False)
    sync()
    end = tmp_path / "end"
    others = [start(code, end) for code in (SYNCS, SYNCS, READS)]
    try:
        for process in others:
            await_beginning(process)
        for index in range(1, 40):
            write_run(root, run_id=f"r{index:03d}", parquet=False)
            time.sleep(0.03)
    finally:
        end.touch()
    for process in others:
        finish(process)
    assert sync().num_total == len(frames.runs()) == 40
    assert frames.runs()["run_id"].is_unique


def test_threads_of_one_process_read_and_sync_at_once(root: Path, database: Path) -> None:
    write_run(root, run_id="r0", parquet=False)
    sync()
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(8):
                assert len(frames.runs()) == len(frames.samples(["r0"])) // 20 * len(frames.runs())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for index in range(1, 5):
        write_run(root, run_id=f"r{index}", parquet=False)
        sync()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(frames.runs()) == 5


def test_kill_9_at_any_moment_loses_nothing(root: Path, database: Path) -> None:
    for index in range(30):
        write_run(root, run_id=f"r{index:02d}")
    sync()
    for attempt in range(4):
        write_run(root, run_id=f"new-{attempt}")
        process = start(SYNCS if attempt % 2 else REBUILDS, database.with_name("never"))
        await_beginning(process)
        time.sleep(0.1 + 0.13 * attempt)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        result = sync()
        assert (result.num_total, result.set_aside, result.rebuilt) == (31 + attempt, [], "")
        assert len(frames.kernels("r00")) == 6
        assert len(frames.samples(frames.runs()["run_id"].tolist())) == 20 * (31 + attempt)
    sync(rebuild=True)
    assert not list(database.parent.glob("*.new*"))


def test_kill_9_between_delete_and_commit_keeps_the_old_rows(root: Path, database: Path) -> None:
    write_run(root, run_id="a")
    sync()
    code = """
import os, signal, sys
from pathlib import Path
from store import db
with db.writing(Path(sys.argv[1])) as connection:
    connection.execute("BEGIN; DELETE FROM run; DELETE FROM meta")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = start(code, database)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    result = sync()
    assert (result.num_new, result.num_total) == (0, 1)


def test_a_store_that_another_program_keeps_open_is_named(
    root: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(root, run_id="a")
    sync()
    monkeypatch.setattr(db, "WAIT_S", 0.3)
    code = "import duckdb, sys, time; held = duckdb.connect(sys.argv[1]); print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(database)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            with pytest.raises(StoreError, match="is held by another program: close it"):
                frames.runs()
        finally:
            process.kill()
    assert len(frames.runs()) == 1


def test_a_writer_that_never_ends_is_named(root: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(root, run_id="a")
    sync()
    monkeypatch.setattr(db, "WAIT_S", 0.1)
    write_run(root, run_id="b")
    with db.write_lock(database), pytest.raises(StoreError, match="another process has been writing"):
        sync()
    assert len(frames.runs()) == 1, "readers do not wait for the lock of writers"


def test_reading_leaves_no_handle_on_the_file(root: Path, database: Path) -> None:
    write_run(root, run_id="a")
    sync()
    frames.ladder("none")
    frames.runs()
    held = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    assert str(database) not in held
