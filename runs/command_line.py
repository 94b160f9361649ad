"""The command line that plans what a form plans: each choice as an option, but for what the sweep takes by itself."""

import shlex
from dataclasses import asdict, fields
from typing import Any

from profiler.combo import BASELINE, choices
from profiler.machine import Machine
from profiler.workload import Workload
from runs import sweep
from runs.rungs import Options


def flag(name: str) -> str:
    """The option of a field, e.g. '--num-inference-steps'."""
    return f"--{name.replace('_', '-')}"


def sweep_command(name: str, workload: Workload, machine: Machine | None, options: Options) -> str:
    """E.g. 'python -m runs sweep ladder_train --model sd15 --batch 16', quoted for a shell.

    On this machine it gives sweep.expand the same as these arguments do. Raises ValueError for an unknown sweep.
    """
    chosen = _workload(name, workload, machine) | _options(options) | _families(name, workload, options)
    words = ["python", "-m", "runs", "sweep", name]
    for field, value in chosen.items():
        words += [flag(field)] if value is True else [flag(field), str(value)]
    return shlex.join(words)


def _workload(name: str, workload: Workload, machine: Machine | None) -> dict[str, Any]:
    """The fields that differ from the defaults; of the resolution that is the model's own."""
    usual = sweep.defaults(name, machine)
    plain = asdict(Workload(**usual | {"model": workload.model})) | {"model": Workload(**usual).model}
    chosen = {field: value for field, value in asdict(workload).items() if value != plain[field]}
    if sweep.kind_of(name).has_own_workload:
        return {field: value for field, value in chosen.items() if field == "device"}
    return chosen


def _options(options: Options) -> dict[str, Any]:
    scalars = [field for field in fields(Options) if field.name != "families"]
    return {one.name: getattr(options, one.name) for one in scalars if getattr(options, one.name) != one.default}


def _families(name: str, workload: Workload, options: Options) -> dict[str, str]:
    """The choices beyond the baseline's; none where they are the stack that a study takes by itself."""
    named = {f: list(chosen) for f, chosen in options.families.items() if list(chosen) != [choices(f)[0]]}
    if sweep.kind_of(name).takes == "stack":
        stack = sweep.default_stack(workload).difference(BASELINE)
        if named == {family: [choice] for family, choice in stack.items()}:
            return {}
    return {family: ",".join(chosen) for family, chosen in named.items()}
