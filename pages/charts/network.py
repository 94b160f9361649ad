"""Time by place in the model: the module tree, the UNet's blocks, attention by resolution."""

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, readable, theme

LEAST_SHARE = 0.002  # of the step: thinner modules cannot be seen
LEAST_BLOCK = 0.01  # of all work
KNOWN_SHAPES = 0.98  # of attention's time, from which nothing is said of the rest
NO_MODULES = "The trace knows no modules."
# A UNet's sides; the same colours for a foreign model's first names, as they come.
SIDES = {"down_blocks": "#1B7FC0", "mid_block": "#009E73", "up_blocks": "#E69F00"}


def icicle(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """The step as a tree of modules by qualified name, each as wide as its time. rows: store.views.modules."""
    title = "Time by module"
    if not rows["module"].astype(bool).any():
        return theme.empty(title, NO_MODULES, dark=dark)
    total = float(rows.loc[rows["parent"] == "", "total_ms"].iloc[0])
    shown = rows[rows["total_ms"] >= LEAST_SHARE * total]
    figure = theme.titled(title, "As wide as its time with all inside of it; click to zoom", dark=dark, height=460)
    figure.add_icicle(
        ids=shown["path"].tolist(),
        parents=shown["parent"].tolist(),
        labels=[theme.short(label, 40) for label in shown["label"]],
        values=shown["total_ms"].tolist(),
        branchvalues="total",
        tiling={"orientation": "v", "pad": 1},
        maxdepth=8,
        sort=False,
        marker={"colors": [_colour(path, dark) for path in shown["path"]], "line": {"width": 0}},
        textfont={"color": [theme.ink(dark).text if _is_neutral(path) else "#ffffff" for path in shown["path"]]},
        hovertext=[
            f"<b>{theme.hover(row.module or row.label)}</b><br>{readable.number(row.total_ms, 'ms')}, "
            f"{readable.percent(row.total_ms / total)} of the step<br>{readable.number(row.self_ms, 'ms')} its own"
            for row in shown.itertuples(index=False)
        ],
        hoverinfo="text",
        pathbar={"thickness": 22},
        leaf={"opacity": 0.85},
    )
    figure.update_layout(margin={"t": 60, "l": 4, "r": 4, "b": 4})
    return figure


def _is_neutral(path: str) -> bool:
    return path.count("|") < 2 or path.split("|")[1] != "model"


def _colour(path: str, dark: bool) -> str:
    if _is_neutral(path):
        return theme.ink(dark).grid
    return SIDES.get(path.split("|")[2], palette.CATEGORIES["other"])


def block_bars(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """One stacked bar per block, from the UNet's input to its output. rows: store.views.blocks."""
    title = "Work by UNet block"
    known = ~rows["block"].isin(("forward", "backward", "recompute", "optimizer", "elsewhere", "between blocks"))
    if not known.any():
        return theme.empty(title, NO_MODULES, dark=dark)
    rows = _without_thin(rows)
    blocks = rows["block"].drop_duplicates().tolist()
    figure = theme.titled(
        title, "From input to output, all phases; what no block did stands last", dark=dark, height=420
    )
    for name, colour in palette.CATEGORIES.items():
        own = rows[rows["category"] == name]
        if own.empty:
            continue
        figure.add_bar(
            name=name,
            x=[blocks.index(block) for block in own["block"]],
            y=own["step_ms"].tolist(),
            marker={"color": colour, "line": {"width": 0.6, "color": theme.ink(dark).background}},
            hovertext=[
                f"<b>{theme.short(row.block, 60)}</b>, {name}<br>{readable.number(row.step_ms, 'ms')}, "
                f"{readable.percent(row.share)} of all work"
                for row in own.itertuples(index=False)
            ],
            hoverinfo="text",
        )
    figure.update_layout(barmode="stack", margin={"t": 104})
    figure.update_yaxes(title_text="Time per step (ms)")
    figure.update_xaxes(
        title_text="Block",
        tickmode="array",
        tickvals=list(range(len(blocks))),
        ticktext=[theme.short(block, 16) for block in blocks],
        tickangle=0 if len(blocks) < 9 else -40,
        showgrid=False,
    )
    return figure


def _without_thin(rows: pd.DataFrame) -> pd.DataFrame:
    """Blocks that are too small to be seen are one, which stands last."""
    total = rows.groupby("block")["step_ms"].transform("sum")
    thin = total < LEAST_BLOCK * rows["step_ms"].sum()
    rest = rows[thin].groupby("category", as_index=False)[["step_ms", "share"]].sum().assign(block="the rest")
    return pd.concat([rows[~thin], rest], ignore_index=True)


def forward_bars(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """The device's work from one forward of a sampling loop to the next. rows: store.views.forwards."""
    title = "Work by denoising step"
    first = rows[rows["step"] == rows["step"].min()]
    if len(first) < 2:
        return theme.empty(title, "The traced step holds one forward.", dark=dark)
    figure = theme.titled(title, "Device time from one forward's launches to the next's", dark=dark, height=300)
    figure.add_bar(
        x=(first["forward"] + 1).tolist(),
        y=first["busy_ms"].tolist(),
        marker={"color": palette.SERIES[0]},
        hovertemplate="forward %{x}<br>%{y:.3f} ms<extra></extra>",
    )
    figure.update_xaxes(title_text="Forward of the loop")
    figure.update_yaxes(title_text="Busy (ms)", rangemode="tozero")
    return figure


def attention_bars(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """One bar per attention shape, stacked by phase. rows: store.views.attention."""
    title = "Attention by resolution"
    if rows.empty:
        return theme.empty(title, "The trace shows no attention with its shapes.", dark=dark)
    names = rows.apply(_shape, axis=1)
    order = rows.groupby(names)["step_ms"].sum().sort_values(ascending=False).index.tolist()
    figure = theme.titled(
        title, "Time per step of each shape, all its layers together", dark=dark, height=140 + 28 * len(order)
    )
    phases = rows["phase"].fillna("no phase")
    for number, phase in enumerate(phases.drop_duplicates()):
        own = rows[phases == phase]
        figure.add_bar(
            name=phase,
            orientation="h",
            x=own["step_ms"].tolist(),
            y=[order.index(name) for name in names[phases == phase]],
            marker={"color": palette.SERIES[number % len(palette.SERIES)]},
            hovertext=[
                f"<b>{name}</b>, {phase}<br>{readable.number(row.step_ms, 'ms')}, {row.num_calls:.0f} calls"
                for name, row in zip(names[phases == phase], own.itertuples(index=False), strict=True)
            ],
            hoverinfo="text",
        )
    figure.update_layout(barmode="stack", margin={"t": 84})
    figure.update_xaxes(title_text="Time per step (ms)")
    theme.label_rows(figure, order)
    return figure


def without_shape(rows: pd.DataFrame, categories: pd.DataFrame) -> str:
    """What part of attention's time the bars do not show; empty where they show it. rows: store.views.attention,
    categories: store.frames.kernel_categories of the run."""
    shown, known = rows["step_ms"].sum(), categories.loc[categories["category"] == "attention", "step_total_ms"].sum()
    if rows.empty or shown > KNOWN_SHAPES * known:
        return ""
    return (
        f"The bars show {readable.number(shown, 'ms')} of the {readable.number(known, 'ms')} that attention's kernels "
        "take per step: of the rest the trace told no shape."
    )


def _shape(row: pd.Series) -> str:
    """E.g. '64x64 self, 8 heads of 40'; of a softmax alone the heads are unknown."""
    if pd.isna(row["query_tokens"]):
        return "shape unknown"
    place = f"{row['query_tokens']} tokens" if pd.isna(row["resolution"]) else row["resolution"].replace("x", "×")
    heads = "" if pd.isna(row["num_heads"]) else f", {row['num_heads']} heads of {row['head_dim']}"
    return f"{place} {row['kind']}{heads}"
