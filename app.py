"""Steplens's server. Start it with `streamlit run app.py`; what it serves is pages/navigation.py."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from threading import Thread

import streamlit as st


def warm_up() -> None:
    """Import what pages import, and what pages.widgets.warm_up does. By name and in a thread: not to keep the server
    from answering meanwhile. Python's collector of cycles would walk over all of it a dozen times, and finds nothing.
    """
    gc.disable()
    try:
        import_module("pages.widgets.warm_up").warm_up()
    finally:
        gc.freeze()
        gc.enable()


@asynccontextmanager
async def lifespan(_: st.App) -> AsyncIterator[None]:
    """While the first browser loads the page, the server would idle."""
    Thread(target=warm_up, name="warm-up").start()
    yield


app = st.App("pages/navigation.py", lifespan=lifespan)
