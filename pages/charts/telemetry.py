"""What the GPU did while it was measured: power, clocks, temperature and utilisation over time."""

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, theme

PANELS: dict[str, tuple[str, str]] = {
    "power_w": ("Power (W)", palette.SERIES[1]),
    "sm_clock_mhz": ("SM clock (MHz)", palette.SERIES[0]),
    "temperature_c": ("Temperature (°C)", palette.SERIES[4]),
    "utilisation": ("Utilisation (%)", palette.SERIES[2]),
}


def telemetry(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """One panel per quantity over a shared time axis. rows: store.frames.telemetry (time_s and PANELS)."""
    title = "The GPU while it was measured"
    panels = [name for name in PANELS if name in rows and rows[name].notna().any()]
    if rows.empty or not panels:
        return theme.empty(title, "No telemetry: it comes from NVML, which a CPU run does not have.", dark=dark)
    figure = theme.titled(title, "NVML samples; clocks were not locked", dark=dark, height=100 + 110 * len(panels))
    gap, share = 0.06, 1 / len(panels)
    for index, name in enumerate(panels):
        axis, (label, colour) = str(index + 1) if index else "", PANELS[name]
        factor = 100 if name == "utilisation" else 1
        figure.add_scatter(
            x=rows["time_s"].to_numpy(),
            y=(rows[name].astype(float) * factor).to_numpy(),
            yaxis=f"y{axis}",
            mode="lines",
            line={"color": colour, "width": 1.6},
            hovertemplate=f"%{{y:.4g}} {label}<extra></extra>",
            showlegend=False,
        )
        bottom = 1 - (index + 1) * share
        domain = [bottom + gap / 2, bottom + share - gap / 2]
        figure.update_layout(
            {
                f"yaxis{axis}": {
                    "domain": domain,
                    "title": {"text": label},
                    "nticks": 4,
                    "range": _range(name, rows[name]),
                }
            }
        )
    figure.update_xaxes(title_text="Time since telemetry began (s)", anchor="free", position=0)
    figure.update_layout(hovermode="x")
    return figure


def _range(name: str, values: pd.Series) -> list[float]:
    """Utilisation from 0 to 100; else the values with room around them, so that a steady line looks steady."""
    if name == "utilisation":
        return [0, 105]
    low, high = float(values.min()), float(values.max())
    room = max(0.15 * (high - low), 0.05 * abs(high), 1e-9)
    return [low - room, high + room]
