"""Pages: one thin file per page; app.py is their table."""

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

# Streamlit 1.67 takes a folder named pages for its older kind of app until app.py has called st.navigation once. When a
# deep link is a server's first request, it runs that page alone: then let app.py have its turn. That older kind knows
# pages by their files' names only and answers other addresses with "Page not found": so a file's name is its address.
if PagesManager.uses_pages_directory:
    PagesManager.uses_pages_directory = False
    st.rerun()
