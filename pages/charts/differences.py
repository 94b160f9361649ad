"""Where a difference in step time comes from: a waterfall between two runs, and the parts of several."""

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, readable, theme

MOST_PARTS = 12
REST = "all other parts"


def waterfall(rows: pd.DataFrame, *, before: str, after: str, dark: bool = False) -> go.Figure:
    """From the wall time of one run to another's, part by part; the smallest changes are one bar.

    rows: store.views.waterfall. before, after: the runs' labels.
    """
    title = "Where the difference comes from"
    if rows.empty:
        return theme.empty(title, "One of the two runs keeps no breakdown of its trace.", dark=dark)
    start, end = float(rows["before_ms"].sum()), float(rows["after_ms"].sum())
    changed = rows[rows["change_ns"] != 0]
    parts = [(str(row["name"]), float(row["change_ms"])) for _, row in changed.head(MOST_PARTS).iterrows()]
    if len(changed) > MOST_PARTS:
        parts.append((f"{REST} ({len(changed) - MOST_PARTS})", float(changed["change_ms"].iloc[MOST_PARTS:].sum())))
    said = (
        f"Traced steps: {readable.number(start, 'ms')} to {readable.number(end, 'ms')}, {_signed(end - start)}; "
        "the bars add up to it"
    )
    figure = theme.titled(title, said, dark=dark, height=130 + 28 * (len(parts) + 2))
    names = [before, *(name for name, _ in parts), after]
    figure.add_waterfall(
        orientation="h",
        measure=["absolute", *["relative"] * len(parts), "total"],
        x=[start, *(change for _, change in parts), end],
        y=list(range(len(names))),
        text=[readable.number(start, "ms"), *(_signed(change) for _, change in parts), readable.number(end, "ms")],
        textposition="outside",
        cliponaxis=False,
        decreasing={"marker": {"color": palette.BETTER}},
        increasing={"marker": {"color": palette.WORSE}},
        totals={"marker": {"color": palette.BASELINE}},
        connector={"line": {"color": theme.ink(dark).axis, "width": 1}},
        hovertext=names,
        hoverinfo="text",
    )
    figure.update_xaxes(title_text="Wall time of the traced step (ms)", range=[0, _reach(start, parts) * 1.12])
    theme.label_rows(figure, names)
    return figure


def _reach(start: float, parts: Sequence[tuple[str, float]]) -> float:
    now, most = start, start
    for _, change in parts:
        now += change
        most = max(most, now)
    return most


def _signed(ms: float) -> str:
    return f"{'+' if ms > 0 else '−'}{readable.number(abs(ms), 'ms')}"


def part_matrix(rows: pd.DataFrame, labels: Mapping[str, str], *, dark: bool = False) -> go.Figure:
    """Parts down, runs across; each cell in milliseconds, coloured by its share of the run's step.

    rows: store.views.part_matrix; labels: of the runs, in order.
    """
    title = "The same parts in every run"
    runs = [run_id for run_id in labels if run_id in set(rows["run_id"])]
    if not runs:
        return theme.empty(title, "None of these runs keeps a breakdown of its trace.", dark=dark)
    cells = rows.pivot(index="part", columns="run_id", values="step_ms").reindex(columns=runs).fillna(0.0)
    order = [name for name in palette.PARTS if name in cells.index]
    cells = cells.reindex([*order, *(name for name in cells.index if name not in order)])
    walls = cells.sum()
    figure = theme.titled(
        title, "Milliseconds of the traced step; each column adds up to its wall time", dark=dark,
        height=190 + 26 * (len(cells) + 1),
    )  # fmt: skip
    text = [[readable.number(value) if value else "" for value in line] for line in cells.to_numpy()]
    text.append([f"<b>{readable.number(wall)}</b>" for wall in walls])
    shares = (cells / walls).to_numpy().tolist()
    figure.add_heatmap(
        z=[*shares, [0.0] * len(runs)],
        x=list(range(len(runs))),
        y=list(range(len(cells) + 1)),
        text=text,
        texttemplate="%{text}",
        colorscale=[[0, theme.ink(dark).background], [1, palette.BETTER]],
        zmin=0,
        zmax=max(0.6, max(max(line) for line in shares)),
        showscale=False,
        xgap=2,
        ygap=2,
        hovertemplate="%{text} ms, %{z:.0%} of the step<extra></extra>",
    )
    theme.label_rows(figure, [*cells.index, "wall time"])
    figure.update_xaxes(
        title_text="Run (stronger: a larger share of its step)",
        side="bottom",
        tickmode="array",
        tickvals=list(range(len(runs))),
        ticktext=["<br>".join(theme.short(line, 24) for line in theme.wrapped(labels[run], 20)[:3]) for run in runs],
        showgrid=False,
    )
    return figure
