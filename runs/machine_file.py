"""machine.json: what the probe worker found, and whether that is still true here."""

import json
from functools import cache
from importlib import metadata
from pathlib import Path

from profiler.machine import Machine
from profiler.record import write_json
from runs.job import home as home_folder
from runs.processes import boot_id

OPTIONAL_PACKAGES = ("triton", "xformers", "flash-attn", "flash-attn-4", "torchao")


def read_machine(home: Path | None = None) -> Machine | None:
    """The Machine in home/machine.json, if it still describes this computer; None calls for a probe."""
    try:
        machine = Machine.from_dict(json.loads(machine_path(home).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return machine if _is_fresh(machine) else None


def write_machine(machine: Machine, home: Path | None = None) -> None:
    """Replace home/machine.json."""
    write_json(machine_path(home), machine.to_dict())


def machine_path(home: Path | None = None) -> Path:
    return home_folder(home) / "machine.json"


def _is_fresh(machine: Machine) -> bool:
    """Same boot, same torch, same packages: installing xformers makes the next sweep look again."""
    if machine.boot_id != boot_id() or _public(machine.torch) != _public(_version("torch") or ""):
        return False
    names = (*machine.packages, *OPTIONAL_PACKAGES)
    return all(_version(name) == machine.packages.get(name) for name in names)


def _public(version: str) -> str:
    """2.13.0 of 2.13.0+cpu: wheels and torch.__version__ do not always agree on what follows."""
    return version.partition("+")[0]


@cache  # pages ask at every rerun; a package installed meanwhile is seen by the next scheduler
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
