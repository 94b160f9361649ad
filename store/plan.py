"""Which folders a sync reads, and which of them the index will show."""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from store import folders
from store.folders import BadFolderError, Found
from store.rows import Rows


@dataclass(frozen=True, slots=True)
class Known:
    """A folder that an earlier sync has seen, as known_folders.sql gives it.

    One that was set aside has a reason, and a run_id only where another folder holds the same run.
    """

    folder: str
    root: str
    record_mtime_ns: int
    run_id: str | None
    reason: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What a sync is going to write."""

    gone: list[str]  # run ids whose rows leave, some of them to be replaced
    new: list[Rows]
    kernels: pa.Table
    set_aside: list[Known]
    num_total: int


def is_current(known: dict[str, Known], found: dict[str, Found]) -> bool:
    """Whether the index says what the disk says; the order of the roots is part of it."""
    if _fresh(known, found) or known.keys() - found.keys():
        return False
    winners = _winners({folder: known[folder].run_id for folder in found})
    return all((entry.reason is None) == (winners[entry.run_id] == f) for f, entry in known.items() if entry.run_id)


def plan(known: dict[str, Known], found: dict[str, Found]) -> Change:
    """Read what is new and decide, run by run, which folder the index shows: the first, in the order of the roots."""
    there = {folder: entry for folder, entry in known.items() if folder in found}
    # The double of a run may have become the only one, so it is read again whenever anything moves.
    doubles = [found[folder] for folder, entry in there.items() if entry.reason is not None and entry.run_id]
    read, kernels, reasons = _read([*_fresh(known, found), *doubles])
    kept = {folder: entry for folder, entry in there.items() if folder not in read and folder not in reasons}
    claims = {folder: _claim(folder, read, kept) for folder in found}
    winners = _winners(claims)
    stays = {run_id for folder in kept if (run_id := claims[folder]) and winners[run_id] == folder}
    return Change(
        gone=sorted({entry.run_id for entry in known.values() if entry.run_id and entry.reason is None} - stays),
        new=[rows for folder, rows in read.items() if winners[rows.run_id] == folder],
        kernels=kernels,
        set_aside=[
            *(entry for entry in kept.values() if entry.run_id is None),
            *(_aside(found[folder], None, reason) for folder, reason in reasons.items()),
            *(
                _aside(found[folder], run_id, f"run {run_id} is indexed from {winners[run_id]}")
                for folder, run_id in claims.items()
                if run_id and winners[run_id] != folder
            ),
        ],
        num_total=len(winners),
    )


def _fresh(known: dict[str, Known], found: dict[str, Found]) -> list[Found]:
    """Folders that are new, or whose record.json is not the one seen before."""
    mtimes = {folder: entry.record_mtime_ns for folder, entry in known.items()}
    return [one for one in found.values() if mtimes.get(one.folder) != one.record_mtime_ns]


def _read(fresh: Iterable[Found]) -> tuple[dict[str, Rows], pa.Table, dict[str, str]]:
    """Rows by folder, the kernels of all of them, and the reasons of the folders that cannot be read."""
    read: dict[str, Rows] = {}
    reasons: dict[str, str] = {}
    for found in fresh:
        try:
            read[found.folder] = folders.read(found)
        except BadFolderError as error:
            reasons[found.folder] = str(error)
    reasons |= folders.misfits(read)
    kernels, bad = folders.read_kernels([folder for folder in read if folder not in reasons])
    reasons |= bad
    return {folder: rows for folder, rows in read.items() if folder not in reasons}, kernels, reasons


def _claim(folder: str, read: dict[str, Rows], kept: dict[str, Known]) -> str | None:
    """The run that a folder holds; None for one that cannot be read."""
    if folder in read:
        return read[folder].run_id
    return kept[folder].run_id if folder in kept else None


def _winners(claims: dict[str, str | None]) -> dict[str, str]:
    """Run id -> the first folder that holds it."""
    winners: dict[str, str] = {}
    for folder, run_id in claims.items():
        if run_id:
            winners.setdefault(run_id, folder)
    return winners


def _aside(found: Found, run_id: str | None, reason: str) -> Known:
    return Known(found.folder, found.root, found.record_mtime_ns, run_id, reason)
