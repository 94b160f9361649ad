"""The launch form, made from the dataclasses: one widget per field of Workload, one per family of Combo."""

from dataclasses import fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pandas as pd
import streamlit as st

from profiler.combo import BASELINE, FAMILIES, Combo, applies, choices
from profiler.machine import Machine
from profiler.why_not import why_not
from profiler.workload import ZOO, Workload

HINTS = get_type_hints(Workload)
FIELDS = {field.name: field for field in fields(Workload)}
HELP = {field.name: field.metadata["help"] for field in (*fields(Workload), *fields(Combo))}
MAIN = ("model", "mode", "device", "batch", "resolution", "world_size")
ONLY_IN_MODE = {
    "num_inference_steps": "sample",
    "guidance_scale": "sample",
    "dataset_size": "train",
    "curve_steps": "train",
}


def workload_form(key: str, *, mode: str | None, device: str, without: tuple[str, ...] = ()) -> Workload | None:
    """The workload of the widgets; None, with the reason shown, when its values make none.

    mode: the only one that the chosen sweep is for, or None for all; device: what this machine would take; without:
    the fields that the sweep sets by itself.
    """
    defaults: dict[str, Any] = {"device": device, "mode": mode or "inference"}
    values: dict[str, Any] = {}
    if without:
        st.caption(f"This study goes through {' and '.join(without)} by itself.")
    for name in (name for name in MAIN if name not in without):
        fixed = name == "mode" and mode is not None
        values[name] = mode if fixed else _widget(name, key, defaults)
        if name == "model":
            defaults["resolution"] = _follow_model(values[name], key)
    with st.expander("How long, and with which seed"):
        for name in FIELDS:
            if name not in MAIN and ONLY_IN_MODE.get(name, values["mode"]) == values["mode"]:
                values[name] = _widget(name, key, defaults)
    try:
        return Workload(**values)
    except ValueError as error:
        st.error(str(error), icon=":material/error:")
        return None


def _follow_model(model: str, key: str) -> int:
    """The model's own resolution (0 where only the built model can tell), shown whenever another model is chosen."""
    own, shown = ZOO[model].resolution if model in ZOO else 0, f"{key}_resolution"
    if st.session_state.setdefault(f"{key}_resolution_of", model) != model:
        st.session_state[f"{key}_resolution_of"] = model
        st.session_state[shown] = own
    return own


def _widget(name: str, key: str, defaults: dict[str, Any]) -> Any:
    """The widget that fits the field's type."""
    hint, default, help = HINTS[name], defaults.get(name, FIELDS[name].default), HELP[name]
    label, place = name.replace("_", " "), {"key": f"{key}_{name}", "help": help, "bind": "query-params"}
    if name == "model":
        model = st.selectbox(label, list(ZOO), accept_new_options=True, **place)
        if model in ZOO:
            st.caption(f"{ZOO[model].help}; {ZOO[model].million_parameters:g} M parameters, {ZOO[model].resolution} px")
        return model
    if get_origin(hint) is Literal:
        return st.segmented_control(label, get_args(hint), default=default, required=True, **place)
    step = 1 if hint is int else 0.5
    lowest = hint(0) if name in ("resolution", "seed", "min_seconds", "guidance_scale", "curve_steps") else hint(1)
    # Streamlit takes a first value from one place only: from the session where that holds one.
    first = {} if place["key"] in st.session_state else {"value": hint(default)}
    return st.number_input(label, min_value=lowest, step=step, **first, **place)


def families_form(
    key: str, mode: str, start: Combo, *, reasons: dict[tuple[str, str], str], multiple: bool
) -> dict[str, list[str]]:
    """The choices per family; what is not possible here stays visible, with a cross."""
    chosen: dict[str, list[str]] = {}
    for family in FAMILIES:
        if not applies(family, mode):
            continue

        def label(choice: str, family: str = family) -> str:
            return f"{choice} ✕" if (family, choice) in reasons else choice

        place = {"key": f"{key}_{mode}_{family}", "help": HELP[family], "format_func": label}
        title, options = family.replace("_", " "), choices(family)
        if multiple:
            several = st.pills(title, options, selection_mode="multi", default=options[:1], wrap=True, **place)
            chosen[family] = several or [options[0]]
        else:
            first = options.index(getattr(start, family))
            chosen[family] = [st.selectbox(title, options, index=first, **place)]
    return chosen


def impossible_choices(workload: Workload, machine: Machine | None) -> dict[tuple[str, str], str]:
    """(family, choice) -> why it cannot run here, whatever precision it is combined with.

    Empty where one reason meets every choice (no CUDA, say): that is no matter of choices, and the plan tells it.
    """
    if machine is None:
        return {}
    families = [family for family in FAMILIES if applies(family, workload.mode)]
    every = {
        (name, choice): _why_never(name, choice, workload, machine) for name in families for choice in choices(name)
    }
    if len(set(every.values())) == 1:
        return {}
    return {place: reason for place, reason in every.items() if reason}


def _why_never(family: str, choice: str, workload: Workload, machine: Machine) -> str | None:
    precisions = (choice,) if family == "precision" else choices("precision")
    combos = [replace(BASELINE, **{"precision": precision} | {family: choice}) for precision in precisions]
    reasons = [why_not(combo, workload, machine) for combo in combos]
    return None if None in reasons else reasons[-1] if len(reasons) == 1 else _shared(reasons)


def _shared(reasons: list[str | None]) -> str | None:
    """The reason that most precisions meet: the one that is not about the precision."""
    return max(reasons, key=reasons.count)


def show_impossible(reasons: dict[tuple[str, str], str]) -> None:
    """The list of what cannot run here and why."""
    if not reasons:
        return
    rows = [{"family": family, "choice": choice, "why": why} for (family, choice), why in reasons.items()]
    with st.expander(f"{len(rows)} choices (✕) are not possible on this machine: why", icon=":material/block:"):
        st.table(pd.DataFrame(rows), hide_index=True)  # wraps the reasons, which a data frame would cut


def device_form(key: str, *, device: str) -> Workload:
    """The device alone, for a sweep that brings its own workloads."""
    st.caption("This sweep brings its own workloads; only the device is yours to choose.")
    return Workload(device=_widget("device", key, {"device": device}))
