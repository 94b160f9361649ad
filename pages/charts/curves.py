"""What changes from step to step: a training run's loss and loss scale, a sampling loop's error."""

import math

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, readable, theme
from profiler.record import TREND_STEPS

THIS = "this run"
_SHARES = {
    "underflow_share": ("as they are", palette.SERIES[1]),
    "underflow_share_scaled": ("times the loss scale", palette.SERIES[2]),
}
_ERRORS = {
    "latents_error": (THIS, palette.SERIES[0], "solid"),
    "latents_error_eager": ("plain eager at this precision", palette.SERIES[1], "dash"),
    "latents_error_fp32": ("plain eager in fp32: the noise floor", palette.BASELINE, "dot"),
}


def training(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """The loss of the first training steps, beside the baseline's; of fp16 the loss scale and lost gradients below.

    rows: store.frames.curves; a column run, where there is one, tells this run's points from others'.
    """
    title = "The first steps of training"
    rows = rows if "run" in rows else rows.assign(run=THIS)
    own = rows[rows["run"] == THIS]
    loss = own[own["name"] == "loss"]
    if loss.empty:
        return theme.empty(title, "This run has no curve of its loss.", dark=dark)
    panels = ["Loss"]
    panels += ["Loss scale"] if (own["name"] == "loss_scale").any() else []
    panels += ["Gradients below 6e-8"] if own["name"].isin(_SHARES).any() else []
    figure = theme.titled(title, _summary(own), dark=dark, height=150 + 150 * len(panels))
    share, gap = 1 / len(panels), 0.1
    for index, label in enumerate(panels):
        bottom = 1 - (index + 1) * share
        domain = [bottom + (gap / 2 if index + 1 < len(panels) else 0), bottom + share - (gap / 2 if index else 0)]
        place = {"domain": domain, "title": {"text": label}, "nticks": 5}
        figure.update_layout({f"yaxis{index + 1 if index else ''}": place})
    _draw_losses(figure, rows)
    if "Loss scale" in panels:
        _draw_scale(figure, own, dark=dark)
    if "Gradients below 6e-8" in panels:
        _draw_shares(figure, own, axis=f"y{len(panels)}")
    figure.update_xaxes(title_text="Training step", anchor="free", position=0)
    figure.update_layout(margin={"t": 92})  # room for the legend under the subtitle
    return figure


def _summary(own: pd.DataFrame) -> str:
    points = own[own["name"] == "loss"].sort_values("x")["y"]
    words = f"loss {readable.number(points.iloc[0])} to {readable.number(points.iloc[-1])} in {len(points)} steps"
    skipped, scales = own[own["name"] == "skipped_steps"], own[own["name"] == "loss_scale"]
    if skipped.empty or scales.empty:
        few = "; neighbours are of different batches: so few show no trend" if len(points) < TREND_STEPS else ""
        return f"{words}, on the same three batches for every combo{few}"
    number = int(skipped["y"].max())
    if number == 0:
        return f"{words}; the loss scale stayed at {scales['y'].max():g}: no gradient overflowed"
    return f"{words}; {number} steps skipped for an overflow (crosses)"


def _draw_losses(figure: go.Figure, rows: pd.DataFrame) -> None:
    losses = rows[rows["name"] == "loss"].sort_values("x")
    names = [name for name in losses["run"].unique() if name != THIS]
    for name in [*names, THIS]:  # this run's own line on top
        line = losses[losses["run"] == name]
        own = name == THIS
        figure.add_scatter(
            name=theme.short(f"loss of {name}", 60),
            x=line["x"].tolist(),
            y=line["y"].tolist(),
            mode="lines",
            line={
                "color": palette.SERIES[0] if own else palette.BASELINE,
                "width": 1.8,
                "dash": None if own else "dot",
            },
            hovertemplate=f"step %{{x}}: %{{y:.4g}}<extra>{theme.short(name, 60)}</extra>",
            showlegend=bool(names),
        )


def _draw_scale(figure: go.Figure, own: pd.DataFrame, *, dark: bool) -> None:
    """In powers of two, since the scaler halves and doubles."""
    scales = own[own["name"] == "loss_scale"].sort_values("x")
    skipped = own[own["name"] == "skipped_steps"].sort_values("x").set_index("x")["y"]
    fell = skipped.index[skipped.diff().fillna(skipped) > 0]
    at = scales[scales["x"].isin(fell)]
    figure.add_scatter(
        name="loss scale",
        x=scales["x"].tolist(),
        y=scales["y"].tolist(),
        yaxis="y2",
        mode="lines",
        line={"color": palette.SERIES[4], "width": 1.8, "shape": "hv"},
        hovertemplate="step %{x}: scale %{y:g}<extra></extra>",
        showlegend=False,
    )
    figure.add_scatter(
        name="skipped steps",
        x=at["x"].tolist(),
        y=at["y"].tolist(),
        yaxis="y2",
        mode="markers",
        marker={"symbol": "x", "size": 8, "color": palette.ink(palette.WORSE, dark)},
        hovertemplate="step %{x} overflowed at scale %{y:g} and was skipped<extra></extra>",
        showlegend=False,
    )
    values = sorted(scales["y"].unique())
    ticks = values[:: max(1, len(values) // 5)]
    span = {"range": [math.log10(values[0] / 2), math.log10(values[-1] * 2)]}
    figure.update_layout(yaxis2={"type": "log", "tickvals": ticks, "ticktext": [f"{v:,.0f}" for v in ticks]} | span)


def _draw_shares(figure: go.Figure, own: pd.DataFrame, *, axis: str) -> None:
    for name, (label, colour) in _SHARES.items():
        line = own[own["name"] == name].sort_values("x")
        if line.empty:
            continue
        figure.add_scatter(
            name=f"gradients {label}",
            x=line["x"].tolist(),
            y=line["y"].tolist(),
            yaxis=axis,
            mode="lines",
            line={"color": colour, "width": 1.6},
            hovertemplate=f"step %{{x}}: %{{y:.2%}} of the gradients {label}<extra></extra>",
        )
    figure.update_layout({axis.replace("y", "yaxis"): {"tickformat": ".2~%", "rangemode": "tozero"}})


def sampling(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """How far the latents are from the reference's after each scheduler step. rows: store.frames.curves."""
    title = "Error of the latents along the sampling loop"
    own = rows[rows["name"] == "latents_error"].sort_values("x")
    if own.empty:
        return theme.empty(title, "This run compared no latents with a reference.", dark=dark)
    first, last = (readable.number(own["y"].iloc[at]) for at in (0, -1))
    figure = theme.titled(
        title, f"relative L2 error {first} after the first step, {last} after the last", dark=dark, height=330
    )
    for name, (label, colour, dash) in reversed(_ERRORS.items()):
        line = rows[(rows["name"] == name) & (rows["y"] > 0)].sort_values("x")
        if line.empty:
            continue
        figure.add_scatter(
            name=label,
            x=line["x"].tolist(),
            y=line["y"].tolist(),
            mode="lines+markers",
            line={"color": colour, "width": 1.8, "dash": dash},
            marker={"size": 5},
            hovertemplate=f"step %{{x}}: %{{y:.3g}}<extra>{label}</extra>",
        )
    figure.update_xaxes(title_text="Scheduler step")
    figure.update_layout(margin={"t": 92})
    figure.update_yaxes(title_text="Relative error", type="log", exponentformat="power")
    return figure
