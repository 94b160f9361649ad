"""Steplens: the table of pages. Start it with `streamlit run app.py`."""

from pathlib import Path

import streamlit as st

ASSETS = Path(__file__).parent / "pages" / "assets"

st.set_page_config(page_title="Steplens", page_icon=str(ASSETS / "icon.svg"), layout="wide")
st.logo(str(ASSETS / "logo.svg"), size="large")
st.html(ASSETS / "page.css")
st.navigation(
    [
        st.Page("pages/overview.py", title="Overview", icon=":material/leaderboard:", default=True),
        st.Page("pages/launch.py", title="Launch", icon=":material/play_arrow:"),
        st.Page("pages/job_queue.py", title="Queue", url_path="queue", icon=":material/list:"),
        st.Page("pages/imports.py", title="Import", icon=":material/upload_file:"),
        st.Page("pages/compare.py", title="Compare", icon=":material/compare_arrows:"),
        st.Page("pages/run.py", title="Run", icon=":material/search:"),
    ],
    position="top",
).run()
