"""Departures: which runs' losses leave those of the others in the first steps of training, in words."""

from typing import Any

import streamlit as st

from pages.charts import readable
from pages.widgets import data
from store import frames
from store.learning import NOISE


def say(run_ids: tuple[str, ...]) -> None:
    """A note per run of these whose loss leaves that of the other runs of its study; mostly nothing."""
    for row in data.read(frames.departures, run_ids).itertuples(index=False):
        st.caption(f":material/trending_up: {sentence(row)}")


def sentence(row: Any) -> str:
    """What a row of store.frames.departures says, and what it does not."""
    name = f"[{readable.escaped(row.combo_label)}](/run?run={row.run_id})"
    steps = f"at {row.num_beyond} of the first {row.num_steps} training steps"
    peers = f"the {row.num_peers} other runs" if row.num_peers > 1 else "the other run"
    text = (
        f"The loss of {name} leaves the others': {steps} it is more than {readable.percent(row.floor)}, and more than "
        f"{NOISE} times their own spread, from that of {peers} with weights in fp32, farthest at step {row.step} "
        f"({readable.number(row.loss)} against {readable.number(row.peers_loss)}). "
    )
    side = "above" if row.end_change > 0 else "below"
    return (
        f"{text}Over the last three of them it is {readable.percent(abs(row.end_change))} {side} theirs: it learns "
        "otherwise. Whether worse, so few steps do not tell: train longer before you rely on it."
    )
