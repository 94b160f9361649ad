"""Steplens's server. Start it with `streamlit run app.py`; what it serves is navigation.py."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from threading import Thread

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

# Streamlit 1.67 takes a folder named pages for its older kind of app until st.navigation has been called once: a deep
# link that is a server's first request would run that page alone, and addresses other than files' names be unknown.
PagesManager.uses_pages_directory = False


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


app = st.App("navigation.py", lifespan=lifespan)
