"""What pages read: the store, synced with the run folders first, and cached until it changes."""

import sys
from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from runs.estimate import Durations, Like
from runs.job import home
from store import frames
from store.db import StoreError
from store.ingest import SyncResult, sync


@st.cache_data(ttl=1.5, max_entries=8, show_spinner=False)
def _synced(at: str) -> SyncResult:
    """One sync serves every session and every frame of a rerun."""
    return sync()


@st.cache_data(ttl=3600, max_entries=400, show_spinner=False)
def _read(module: str, name: str, at: str, generation: int, *arguments: Any) -> Any:
    return getattr(sys.modules[module], name)(*arguments)


def answer(query: Callable[..., Any], *arguments: Any) -> Any:
    """What a query (a function of store.frames or its like) answers, from the cache while no run was added.

    Raises StoreError or OSError for what the store cannot do (an unwritable folder, an index of a newer version).
    """
    at = str(home())
    return _read(query.__module__, query.__name__, at, _synced(at).generation, *arguments)


def read(query: Callable[..., Any], *arguments: Any) -> Any:
    """The answer on a page: what the store cannot do is shown in words and ends it."""
    try:
        return answer(query, *arguments)
    except (StoreError, OSError) as error:
        st.error(str(error), icon=":material/error:")
        st.stop()


def look_again() -> None:
    """Have the next read sync first: this page has just made a run."""
    _synced.clear()


def forget() -> None:
    """Read everything anew: something beside the index has changed."""
    _read.clear()


def set_aside() -> list[tuple[str, str]]:
    """The run folders that could not be indexed, each with its reason."""
    return list(_synced(str(home())).set_aside)


def durations() -> Durations:
    """The seconds that runs of each kind took here, for estimates."""
    kinds = read(frames.durations).groupby(list(Like._fields))["duration_s"]
    return {Like(*kind): tuple(seconds) for kind, seconds in kinds}


def run_labels(runs: pd.DataFrame) -> dict[str, str]:
    """run_id -> what a selector shows: combo, workload, and when it ran where that alone tells it apart."""
    labels = runs["combo_label"] + " · " + runs["workload_label"]
    when = runs["started_at"].dt.strftime("%d %b %H:%M:%S").fillna("not started")
    status = runs["status"].where(runs["status"] != "done", "")
    labels = labels + status.map(lambda word: f" · {word}" if word else "")
    labels = labels.where(~labels.duplicated(keep=False), labels + " · " + when)
    return dict(zip(runs["run_id"], labels, strict=True))
