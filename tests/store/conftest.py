"""A store of its own for each test."""

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "runs"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The index of a home of the test's own, which is also the default one."""
    monkeypatch.setenv("STEPLENS_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("STEPLENS_ROOTS", raising=False)
    monkeypatch.setattr("store.folders.RECORDED_ROOT", tmp_path / "recorded")
    return tmp_path / "data" / "steplens.duckdb"
