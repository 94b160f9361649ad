"""Selectors whose choice stands in the page's address: ?run=RUN_ID opens that run.

Streamlit's own binding puts the shown label into the address; a link must carry the id, which does not change.
The same thing has one name in the address of every page: run (several on Compare), baseline, study.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import streamlit as st

Name = Literal["run", "baseline", "study"]


def select(
    label: str, labels: Mapping[str, str], key: str, name: Name, *, default: str | None = None, **place: Any
) -> str:
    """One of the ids in labels (shown by their labels): that of the address's parameter `name`, else the default.

    The default stands first; when it changes, a choice that was not made by hand follows it.
    """
    options = sorted(labels, key=lambda option: option != default)
    widget = f"{key}-choice-{default}"
    asked = st.query_params.get(name)
    if st.session_state.get(widget, options[0]) not in labels:
        del st.session_state[widget]
    if widget not in st.session_state and asked in labels:
        st.session_state[widget] = asked
    show = {"format_func": labels.__getitem__, "key": widget, "on_change": _remember, "args": (name, widget)}
    return str(st.selectbox(label, options, **show, **place))


def say_unknown(labels: Mapping[str, str], name: Name, instead: str) -> None:
    """A warning where the address asks for what is not there, e.g. in an old link."""
    asked = st.query_params.get(name)
    if asked and asked not in labels:
        st.warning(f"There is no {name} {asked} in this store; here is {instead}.", icon=":material/search_off:")


def select_several(
    label: str, labels: Mapping[str, str], key: str, name: Name, *, default: Sequence[str], **place: Any
) -> list[str]:
    """Some of the ids in labels: those of the address, else the default."""
    widget = f"{key}-choice"
    asked = [option for option in st.query_params.get_all(name) if option in labels]
    if widget not in st.session_state:
        st.session_state[widget] = asked or list(default)
    st.session_state[widget] = [option for option in st.session_state[widget] if option in labels]
    show = {"format_func": labels.__getitem__, "key": widget, "on_change": _remember, "args": (name, widget)}
    return [str(option) for option in st.multiselect(label, list(labels), **show, **place)]


def _remember(name: Name, widget: str) -> None:
    st.query_params[name] = st.session_state[widget]
