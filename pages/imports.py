"""Import: traces that torch.profiler wrote elsewhere become runs."""

import streamlit as st

from pages.widgets import data, imported
from store import frames

st.header("Import")
st.markdown("A trace of `torch.profiler` from anywhere: its kernels, operators and modules, beside your measured runs.")
imported.drop_zone("import")
imported.show_answers("import")
st.subheader("Imported so far")
imported.show_imported(data.read(frames.runs), key="import")
imported.show_how_to()
