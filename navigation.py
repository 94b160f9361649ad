"""The table of pages, which app.py serves."""

from pathlib import Path

import streamlit as st

ASSETS = Path(__file__).parent / "pages" / "assets"

st.set_page_config(page_title="Steplens", page_icon=str(ASSETS / "icon.svg"), layout="wide")
st.logo(str(ASSETS / "logo.svg"), size="large")
st.html(ASSETS / "page.css")
# No page has an address of its own choice (url_path): it is the file's name, as pages/__init__.py needs it.
st.navigation(
    [
        st.Page("pages/overview.py", title="Overview", icon=":material/leaderboard:", default=True),
        st.Page("pages/launch.py", title="Launch", icon=":material/play_arrow:"),
        st.Page("pages/job_queue.py", title="Queue", icon=":material/list:"),
        st.Page("pages/imports.py", title="Import", icon=":material/upload_file:"),
        st.Page("pages/compare.py", title="Compare", icon=":material/compare_arrows:"),
        st.Page("pages/run.py", title="Run", icon=":material/search:"),
    ],
    position="top",
).run()
