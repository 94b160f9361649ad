"""The table of pages, which app.py serves."""

from pathlib import Path

import streamlit as st

ASSETS = Path(__file__).parent / "assets"

st.set_page_config(page_title="Steplens", page_icon=str(ASSETS / "icon.svg"), layout="wide")
st.logo(str(ASSETS / "logo.svg"), size="large")
st.html(ASSETS / "page.css")
st.navigation(
    [
        st.Page("overview.py", title="Overview", icon=":material/leaderboard:", default=True),
        st.Page("launch.py", title="Launch", icon=":material/play_arrow:"),
        st.Page("job_queue.py", title="Queue", icon=":material/list:"),
        st.Page("imports.py", title="Import", icon=":material/upload_file:"),
        st.Page("compare.py", title="Compare", icon=":material/compare_arrows:"),
        st.Page("run.py", title="Run", icon=":material/search:"),
    ],
    position="top",
).run()
