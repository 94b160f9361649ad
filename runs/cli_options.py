"""Command-line options made from the fields of Combo, Workload and Options: a new family needs no line here."""

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, get_type_hints

import typer

from profiler.combo import FAMILIES, Combo, choices
from profiler.workload import Workload
from runs.command_line import flag
from runs.rungs import Options

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def takes_combo_and_workload(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the command's `combo` and `workload` dictionaries by one option per field (None: not given)."""
    return _with_options(command, {"combo": _combo_options(), "workload": _workload_options()})


def takes_sweep_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace `workload`, `extras` and `families` dictionaries by options; families take lists: math,sdpa."""
    hints = get_type_hints(Options)
    extras = [
        _parameter(f.name, hints[f.name] | None, f.metadata["help"], "Sweeps")
        for f in fields(Options)
        if f.name != "families"
    ]
    groups = {"workload": _workload_options(), "extras": extras, "families": _family_options()}
    return _with_options(command, groups)


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Only what was given on the command line."""
    return {name: value for name, value in values.items() if value is not None}


def parse_duration(text: str) -> float:
    """Seconds of '9m', '90s', '1h30m' or '540'. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if not text.strip() or match is None:
        raise ValueError(f"{text!r} is no duration: write 9m, 90s, 1h30m or a number of seconds")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _with_options(command: Callable[..., None], groups: dict[str, list[inspect.Parameter]]) -> Callable[..., None]:
    own = [p for name, p in inspect.signature(command).parameters.items() if name not in groups]

    def gathered(**values: Any) -> None:
        collected = {group: {p.name: values.pop(p.name) for p in options} for group, options in groups.items()}
        command(**values, **collected)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    parameters += [option for options in groups.values() for option in options]
    gathered.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads both
    gathered.__annotations__ = {p.name: p.annotation for p in parameters}
    gathered.__doc__, gathered.__name__ = command.__doc__, command.__name__
    return gathered


def _combo_options() -> list[inspect.Parameter]:
    hints = get_type_hints(Combo)
    panel = "Combo: one choice per optimisation family"
    return [_parameter(f.name, hints[f.name] | None, _help(f), panel) for f in fields(Combo)]


def _workload_options() -> list[inspect.Parameter]:
    hints = get_type_hints(Workload)
    return [_parameter(f.name, hints[f.name] | None, _help(f), "Workload") for f in fields(Workload)]


def _family_options() -> list[inspect.Parameter]:
    panel = "Choices: lists for grid, one per family for studies of a stack"
    return [_parameter(name, str | None, f"From {', '.join(choices(name))}.", panel) for name in FAMILIES]


def _parameter(name: str, kind: Any, text: str, panel: str, default: Any = None) -> inspect.Parameter:
    option = typer.Option(flag(name), help=text, rich_help_panel=panel, show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _help(field: "Field[Any]") -> str:
    default = "the GPU if there is one" if field.name == "device" else field.default
    shown = "" if default is MISSING or (field.name == "resolution") else f" [default: {default}]"
    return f"{field.metadata['help']}{shown}"
