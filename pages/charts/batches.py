"""Batches: peak memory over batch, the line through two of them, and where it meets the device's memory."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, readable, theme

TITLE = "The largest batch that fits"
EDGE = 1.15  # times what is highest: where the chart ends
FAR = 2  # times the largest measured batch: beyond, a line through two small ones is no prediction to plan with
OFF = 0.1  # of a measured peak: a line that missed one by more says nothing of the next
COLOURS = (palette.BASELINE, palette.BETTER, *palette.SERIES[2:])


def batches(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """Dots are measured, dotted lines the prediction, crosses ran out of memory. rows: store.frames.largest_batch."""
    own = rows[rows["per_sample_gib"].notna()]
    if own.empty:
        return theme.empty(TITLE, "It takes two measured batches of one combo to predict others.", dark=dark)
    subtitle = "Dots: measured peaks; dotted: the line through the two largest"
    if own["peak_gib"].isna().any():
        subtitle += "; cross, along the upper edge: out of memory"
    figure = theme.titled(TITLE, subtitle, dark=dark, height=360)
    unit = readable.memory_unit(own[["peak_gib", "capacity_gib"]].max(axis=None))
    edge = EDGE * max(own[["peak_gib", "capacity_gib"]].max(axis=None), *map(_end_gib, _series(own)))
    for series, colour in zip(_series(own), COLOURS, strict=False):
        _draw_series(figure, series, unit, colour, edge)
    capacity = own["capacity_gib"].min()
    if pd.notna(capacity):
        figure.add_hline(
            y=capacity * unit.per_gib,
            line={"color": theme.ink(dark).axis, "width": 1, "dash": "dash"},
            annotation={
                "text": f"device: {readable.number(capacity)} GiB",
                "font": {"color": theme.ink(dark).muted},
            },
            annotation_position="top left",
        )
    figure.update_layout(margin={"t": 96})
    figure.update_xaxes(title_text="Batch (samples)", rangemode="tozero")
    figure.update_yaxes(
        title_text=f"Peak allocated ({unit.name})",
        range=[min(0.0, own["fixed_gib"].min()) * unit.per_gib, edge * unit.per_gib],
    )
    return figure


def _series(rows: pd.DataFrame) -> list[pd.DataFrame]:
    return [series for _, series in rows.groupby("anchor_run_id", sort=False)]


def _end(rows: pd.DataFrame) -> float:
    """The batch at which a series' line ends."""
    largest = rows["largest_batch"].iloc[0]
    return float(rows["batch"].max() if pd.isna(largest) else max(largest, _measured(rows)["batch"].max()))


def _end_gib(rows: pd.DataFrame) -> float:
    return float(rows["fixed_gib"].iloc[0] + rows["per_sample_gib"].iloc[0] * _end(rows))


def _measured(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["peak_gib"].notna()]


def _draw_series(figure: go.Figure, rows: pd.DataFrame, unit: readable.MemoryUnit, colour: str, edge: float) -> None:
    name, measured = str(rows["combo_label"].iloc[0]), _measured(rows)
    figure.add_scatter(
        x=[0, _end(rows)],
        y=[rows["fixed_gib"].iloc[0] * unit.per_gib, _end_gib(rows) * unit.per_gib],
        mode="lines",
        line={"color": colour, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
        legendgroup=name,
        showlegend=False,
    )
    figure.add_scatter(
        name=theme.short(name, 60),
        x=measured["batch"].tolist(),
        y=(measured["peak_gib"] * unit.per_gib).tolist(),
        mode="markers",
        marker={"size": 9, "color": colour},
        hovertext=[_hover(row) for row in measured.itertuples()],
        hoverinfo="text",
        legendgroup=name,
    )
    gone = rows[rows["peak_gib"].isna()]
    if len(gone):
        figure.add_scatter(
            name="out of memory",
            x=gone["batch"].tolist(),
            y=[edge * unit.per_gib] * len(gone),
            cliponaxis=False,
            mode="markers",
            marker={"symbol": "x", "size": 9, "color": palette.status("oom")},
            hovertext=[_hover(row) for row in gone.itertuples()],
            hoverinfo="text",
            legendgroup=name,
            showlegend=False,
        )


def reading(rows: pd.DataFrame) -> str:
    """One paragraph per series: the prediction, what checked it, and how far it was off."""
    series = [own for own in _series(rows) if own["per_sample_gib"].notna().all()]
    return "\n\n".join(_sentence(own, with_name=len(series) > 1) for own in series)


def _sentence(rows: pd.DataFrame, *, with_name: bool) -> str:
    first, who = rows.iloc[0], f"{rows['combo_label'].iloc[0]}: a" if with_name else "A"
    text = f"{who} sample takes {readable.gib(first['per_sample_gib'])}, "
    if first["fixed_gib"] < 0:
        text += (
            f"and all else would be {readable.gib(first['fixed_gib'])}: the line does not hold (some library, such as "
            "cuDNN, takes another workspace at one of the two batches than at the other)"
        )
    else:
        text += f"all else {readable.gib(first['fixed_gib'])}"
    if pd.notna(first["largest_batch"]):
        text += f"; {_history(first, rows)}{_prediction(first, rows)}"
    elif pd.isna(first["capacity_gib"]):
        text += "; what fits is unknown, since the device's memory is"
    if (off := _off(rows)) is not None:
        text += f". Measured batches, predicted from the two below them, were off by at most {off:.1%}"
        if not _guides(rows) and first["verdict"] != "measured":
            text += ": the line is no guide here (libraries take workspaces by leaps), only a measured batch is"
    return text + "."


def _off(rows: pd.DataFrame) -> float | None:
    """How far the worst prediction of a measured batch was off; null where none was predicted."""
    errors = rows["error"].abs().dropna()
    return float(errors.max()) if len(errors) else None


def _guides(rows: pd.DataFrame) -> bool:
    """Whether the line held where it was checked."""
    return (_off(rows) or 0.0) <= OFF


def _history(first: Any, rows: pd.DataFrame) -> str:
    """What was predicted before a larger batch was measured; empty where none has met or passed it."""
    if pd.isna(first["earlier_batch"]):
        return ""
    fitting = _measured(rows)["batch"].max()
    met = "and" if fitting == first["earlier_batch"] else "but"
    return f"earlier predicted: {first['earlier_batch']} from batches {first['earlier_basis']}, {met} {fitting} fits; "


def _prediction(first: Any, rows: pd.DataFrame) -> str:
    """The largest batch, measured or predicted, and what runs say of it: itself, the next one up, and those beyond."""
    largest, measured = int(first["largest_batch"]), _measured(rows)
    said = {int(row.batch): _outcome(row) for row in rows.itertuples()}
    if first["verdict"] == "measured":
        return f"measured: {largest} is the largest that fits: {said[largest]}, {said[largest + 1]}"
    text = f"{'now ' if pd.notna(first['earlier_batch']) else ''}from batches {first['basis']}, predicted: "
    if first["verdict"] == "refuted":
        between = f"the largest that fits is from {measured['batch'].max()} to {largest}"
        return f"{text}{first['line_batch']}; refuted: {said[largest + 1]}, so {between}"
    text += f"{largest} {'is' if _guides(rows) else 'would be'} the largest that fits; "
    if largest in said:
        return f"{text}checked: {said[largest]}, {largest + 1} is not checked"
    beyond = [outcome for batch, outcome in said.items() if batch > largest][:1]
    text += ", ".join(["not checked", *beyond])
    times = largest / measured["batch"].max()
    if times > FAR:
        text += f", and {readable.number(times)} times the largest that was measured: a line so far on is a guess, "
        text += "measure larger"
    return text


def _outcome(row: Any) -> str:
    return (
        f"{row.batch} fits (peak {readable.gib(row.peak_gib)})" if pd.notna(row.peak_gib) else f"{row.batch} does not"
    )


def _hover(row: Any) -> str:
    head = f"<b>batch {row.batch}</b><br>{row.status}"
    lines = [f"peak {readable.gib(row.peak_gib)}"] if pd.notna(row.peak_gib) else []
    if pd.notna(row.predicted_gib):
        lines.append(f"from the two below: {readable.gib(row.predicted_gib)}")
    return "<br>".join([head, *lines])
