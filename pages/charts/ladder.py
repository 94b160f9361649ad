"""The speedup ladder: one row per run in the order of the sweep; a run without a time keeps its row and says why."""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.charts import dots, palette, readable, theme
from profiler.record import GPU_BOUND, LAUNCH_BOUND

ROW, MAX_DOTS = 27, 40
TOP = 100  # pixels above the plot: title, two lines below it, the heads of the columns
WIDTHS = {"speedup": 62, "ms": 62, "GiB": 54, "MiB": 54, "GPU waits": 112}  # pixels of the columns beside the plot
CHANGE_WIDTH = 78
SET_BY_LAUNCHES = "the CPU's launches set this time, not the kernel"
SET_IN_PART = "the CPU's launches set some of this time, the kernels most of it"
WAITS_IN_PART = f"{1 - GPU_BOUND:.0%} to {1 - LAUNCH_BOUND:.0%}"  # of the step, by the GPU
BOUND_BY = {"launch-bound": SET_BY_LAUNCHES, "partly launch-bound": SET_IN_PART}
TIMED = ("done", "imported", "wrong", "ineffective")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """What the bars are measured in: the speedup, or the time where no run is a baseline for the others."""

    column: str
    low: str | None
    high: str | None
    title: str
    axis: str


SPEEDUP = Scale(
    column="speedup",
    low="speedup_low",
    high="speedup_high",
    title="Speedup over the baseline",
    axis="Speedup (baseline median / median step time, ×)",
)
TIME = Scale(column="step_ms", low=None, high=None, title="Step time", axis="Median step time (ms)")


def ladder(
    runs: pd.DataFrame, samples: pd.DataFrame | None = None, *, study: str = "", dark: bool = False
) -> go.Figure:
    """Bars with their 95% interval, every sample as a dot, and the figures in columns at the right.

    runs: store.frames.ladder; samples: store.frames.samples of the same runs, or None.
    """
    if runs.empty:
        return theme.empty("Speedup over the baseline", "This study has no runs yet.", dark=dark)
    rows = runs.reset_index(drop=True)
    scale = SPEEDUP if rows["speedup"].notna().any() else TIME
    title = f"{scale.title} · {study}" if study else scale.title
    figure = theme.titled(title, _subtitle(rows, scale, samples), dark=dark, height=TOP + 38 + ROW * len(rows))
    drawn = rows[rows["status"].isin(TIMED) & rows[scale.column].notna()]
    if scale is SPEEDUP:
        _draw_drift(figure, rows, dark)
    _draw_bars(figure, drawn, scale, dict(zip(rows["run_id"], rows["step_label"], strict=True)), dark)
    _draw_samples(figure, rows, samples, scale, dark)
    _draw_reasons(figure, rows.drop(drawn.index), dark)
    _draw_columns(figure, rows, dark)
    _draw_axes(figure, rows, drawn, scale)
    return figure


def _subtitle(rows: pd.DataFrame, scale: Scale, samples: pd.DataFrame | None) -> str:
    if scale is TIME:
        return (
            "No finished baseline of the same device and boot, so times instead of ratios; hatched: failed its checks"
        )
    dots = ", dots: single steps" if samples is not None and not samples.empty else ""
    bars = f"Bar: ratio of medians, whisker: 95% interval{dots}, grey band: drift of the repeated baseline"
    return f"{bars}\n{_legend(rows)}"


def _legend(rows: pd.DataFrame) -> str:
    """What the bars' colours judge."""
    against = {"vs stack": "against the stack", "its change": "against the row that its label builds on"}
    whom = against.get(change_heading(rows), "against the baseline")
    return f"Colour: {whom}, blue is faster, orange slower, grey no difference beyond spread and drift, or unknown"


def change_heading(rows: pd.DataFrame) -> str:
    """What the column of the rows' own changes is called; empty where their labels build on no other row."""
    if rows["builds_on"].isna().all():
        return ""
    return "vs stack" if rows["step_label"].eq("stack").any() else "its change"


def _draw_drift(figure: go.Figure, rows: pd.DataFrame, dark: bool) -> None:
    drift = rows["drift"].astype(float).max()
    if drift > 0:
        figure.add_vrect(x0=1 / (1 + drift), x1=1 + drift, fillcolor=theme.ink(dark).band, line_width=0, layer="below")
    figure.add_vline(x=1, line={"color": theme.ink(dark).axis, "width": 1}, layer="below")


def _draw_bars(figure: go.Figure, drawn: pd.DataFrame, scale: Scale, names: dict[str, str], dark: bool) -> None:
    hatched = drawn["status"].isin(("wrong", "ineffective"))
    whiskers = None
    if scale.low and scale.high:
        value = drawn[scale.column].astype(float)
        whiskers = {
            "type": "data",
            "symmetric": False,
            "array": (drawn[scale.high].astype(float) - value).tolist(),
            "arrayminus": (value - drawn[scale.low].astype(float)).tolist(),
            "color": theme.ink(dark).text,
            "thickness": 1.3,
            "width": 4,
        }
    figure.add_bar(
        name="runs",
        orientation="h",
        x=drawn[scale.column].tolist(),
        y=drawn.index.tolist(),
        marker={
            "color": [_colour(row) for _, row in drawn.iterrows()],
            "pattern": {"shape": ["/" if bad else "" for bad in hatched], "solidity": 0.35, "size": 6},
        },
        error_x=whiskers,
        customdata=drawn["run_id"].tolist(),
        hovertext=[_hover(row, names) for _, row in drawn.iterrows()],
        hoverinfo="text",
        width=0.62,
        showlegend=False,
    )


def _colour(row: pd.Series) -> str:
    if row["status"] in ("wrong", "ineffective"):
        return palette.status(row["status"])
    if row["sweep_role"] in ("baseline", "baseline_repeat"):
        return palette.BASELINE
    return palette.VERDICTS[row["verdict" if pd.isna(row["builds_on"]) else "change_verdict"]]


def _hover(row: pd.Series, names: dict[str, str]) -> str:
    """names: what each run's row is called."""
    lines = [
        f"<b>{theme.hover(str(row['combo_label']))}</b>",
        f"speedup {readable.interval(row['speedup'], row['speedup_low'], row['speedup_high'])}, {row['verdict']}",
        *_of_change(row, names),
        f"{readable.median_step(row['step_ms'], row['num_samples'])}, IQR {readable.number(row['step_iqr_ms'], 'ms')}",
        f"peak {readable.gib(row['peak_allocated_gib'])}",
        *_errors(row),
    ]
    if row["launch_verdict"] in BOUND_BY:
        verdict, waits = row["launch_verdict"], readable.idle(row["gpu_busy_share"])
        lines.append(f"{verdict}: {BOUND_BY[verdict]} (GPU waits {waits})")
    if row["status"] != "done":
        lines.append(f"{row['status']}: {theme.hover(_text(row['cause']))}")
    return "<br>".join(lines)


def _of_change(row: pd.Series, names: dict[str, str]) -> list[str]:
    """What the row's own change did, and against which row."""
    if pd.isna(row["builds_on"]):
        return []
    base = theme.hover(names.get(row["builds_on"], row["builds_on"]))
    if pd.isna(row["change_speedup"]):
        return [f"against '{base}': no ratio"]
    ratio = readable.interval(row["change_speedup"], row["change_speedup_low"], row["change_speedup_high"])
    return [f"against '{base}': {ratio}, {row['change_verdict']}; peak {readable.times(row['change_memory_ratio'])}"]


def _errors(row: pd.Series) -> list[str]:
    """The relative errors, of gradients only in training: no ratio tells the precisions apart."""
    return [
        f"{kind} error {readable.number(row[f'{kind}_error'])} against the reference "
        f"({readable.times(row[f'{kind}_error_ratio'])} plain eager's at this precision)"
        for kind in ("output", "gradient")
        if kind == "output" or pd.notna(row["gradient_error"])
    ]


def _draw_samples(
    figure: go.Figure, rows: pd.DataFrame, samples: pd.DataFrame | None, scale: Scale, dark: bool
) -> None:
    if samples is None or samples.empty:
        return
    steps = samples[samples["metric"] == "step_ms"]
    medians = rows.drop_duplicates("run_id").set_index("run_id")["step_ms"]
    xs: list[float] = []
    ys: list[float] = []
    for position, row in rows[rows[scale.column].notna()].iterrows():
        own = steps.loc[steps["run_id"] == row["run_id"], "value"].astype(float)
        own = own.iloc[:: max(1, len(own) // MAX_DOTS)]
        values = medians.get(row["baseline_run_id"]) / own if scale is SPEEDUP else own
        xs += values.tolist()
        ys += [float(str(position))] * len(values)
    figure.add_scatter(
        name="samples",
        x=xs,
        y=ys,
        mode="markers",
        marker={"size": 3.5, "color": theme.ink(dark).text, "opacity": 0.35},
        hoverinfo="skip",
        showlegend=False,
    )


def _draw_reasons(figure: go.Figure, rows: pd.DataFrame, dark: bool) -> None:
    """A row without a bar: its status in colour, and the cause in words."""
    for position, row in rows.iterrows():
        reason = _text(row["cause"]) or _text(row["why_not_comparable"]) or "no cause was recorded"
        dots.draw_reason(figure, int(str(position)), str(row["status"]), reason, dark)


def _draw_columns(figure: go.Figure, rows: pd.DataFrame, dark: bool) -> None:
    """Speedup, own change, median and peak as right-aligned columns beside the bars; of a GPU also its waiting."""
    unit, is_timed = readable.memory_unit(rows["peak_allocated_gib"].max()), rows["step_ms"].notna()
    columns = {"speedup": rows["speedup"].map(readable.times)}
    if heading := change_heading(rows):
        columns[heading] = rows.apply(_change_cell, axis=1, dark=dark)
    columns["ms"] = rows["step_ms"].map(readable.number)
    columns[unit.name] = (rows["peak_allocated_gib"] * unit.per_gib).map(readable.number)
    if _of_gpu(rows):
        columns["GPU waits"] = readable.gpu_waits(rows)
    told = {heading: texts.where(is_timed, "").tolist() for heading, texts in columns.items()}
    ends = list(accumulate(WIDTHS.get(heading, CHANGE_WIDTH) for heading in told))
    dots.draw_columns(figure, told, dark, ends=ends)
    figure.update_layout(margin={"t": TOP})


def _change_cell(row: pd.Series, dark: bool) -> str:
    """The ratio to what the row builds on, in the colour of its verdict; nothing for a row that builds on none."""
    if pd.isna(row["builds_on"]):
        return ""
    ratio, verdict = readable.times(row["change_speedup"]), row["change_verdict"]
    if row["status"] != "done" or verdict not in ("faster", "slower"):
        return ratio
    return f'<b style="color:{palette.ink(palette.VERDICTS[verdict], dark)}">{ratio}</b>'


def _of_gpu(rows: pd.DataFrame) -> bool:
    """Whether any run says what set its time, as only a GPU's do."""
    return bool(rows["launch_verdict"].notna().any())


def _draw_axes(figure: go.Figure, rows: pd.DataFrame, drawn: pd.DataFrame, scale: Scale) -> None:
    farthest = drawn[[scale.high or scale.column, scale.column]].astype(float).max().max() if len(drawn) else 1.0
    figure.update_xaxes(
        title_text=scale.axis, range=[0, max(1.15, farthest * 1.04) if scale is SPEEDUP else farthest * 1.08]
    )
    theme.label_rows(figure, rows["step_label"], one_line=True)


def _text(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value)
