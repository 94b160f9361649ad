"""What each choice buys alone, or what a stack loses without it."""

import pandas as pd
import plotly.graph_objects as go

from pages.charts import dots, palette, readable, theme

COLOURS = {"gains": palette.BETTER, "costs": palette.WORSE}
TITLES = {"alone": "What each choice buys alone", "without": "What the stack loses without each choice"}
AXES = {
    "alone": "Step of the baseline over the step with it (×, logarithmic)",
    "without": "Step without it over the step of the whole stack (×, logarithmic)",
}


def contributions(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """A dot per choice with its 95% interval, what pays most first. rows: store.frames.contributions."""
    if rows.empty:
        return theme.empty(TITLES["alone"], "No run of this study has a single choice changed yet.", dark=dark)
    own = rows.sort_values("gain", ascending=False, na_position="last").reset_index(drop=True)
    question, drift = str(own.at[0, "question"]), own["drift"].max()
    subtitle = "Right of 1× it pays; whisker: 95% interval; grey band: drift; memory: the same ratio of peaks"
    figure = theme.titled(TITLES[question], subtitle, dark=dark, height=dots.height(len(own)))
    dots.draw_band(figure, 0.0 if pd.isna(drift) else float(drift), dark)
    colours = [COLOURS.get(verdict, palette.EVEN) for verdict in own["verdict"]]
    dots.draw(figure, own, "gain", colours=colours, hovers=[_hover(row) for _, row in own.iterrows()], dark=dark)
    for position, row in own[own["gain"].isna()].iterrows():
        dots.draw_reason(figure, int(str(position)), str(row["status"]), str(row["cause"] or "no ratio"), dark)
    columns = {
        "time": ["" if pd.isna(value) else readable.times(value) for value in own["gain"]],
        "memory": ["" if pd.isna(value) else readable.times(value) for value in own["memory_gain"]],
        "step": ["" if pd.isna(value) else readable.number(value, "ms") for value in own["step_ms"]],
    }
    dots.draw_columns(figure, columns, dark)
    theme.label_rows(figure, own["label"], one_line=True)
    figure.update_xaxes(title_text=AXES[question])
    return figure


def reading(rows: pd.DataFrame) -> str:
    """The chart in one sentence."""
    known = rows[rows["gain"].notna() & (rows["status"] == "done")].sort_values("gain", ascending=False)
    if known.empty:
        return ""
    best, is_alone = known.iloc[0], known["question"].iloc[0] == "alone"
    first = (
        f"**{best['label']}** buys most time ({readable.times(best['gain'])})"
        if is_alone
        else f"Without **{best['label']}** a step of the stack takes {readable.times(best['gain'])} as long"
    )
    parts = [first if best["verdict"] == "gains" else "No choice gains time beyond spread and drift"]
    leanest = known.loc[known["memory_gain"].idxmax()] if known["memory_gain"].notna().any() else None
    if leanest is not None and leanest["memory_gain"] > 1.02:
        name, ratio = f"**{leanest['label']}**", readable.times(leanest["memory_gain"])
        parts.append(f"{name} most memory ({ratio})" if is_alone else f"without {name} its peak is {ratio} as large")
    if idle := known.loc[known["verdict"] == "none", "label"].tolist():
        parts.append(f"no difference: {', '.join(idle[:4])}{' and more' if len(idle) > 4 else ''}")
    if costs := known.loc[known["verdict"] == "costs", "label"].tolist()[::-1]:
        parts.append(f"slower: {', '.join(costs[:4])}{' and more' if len(costs) > 4 else ''}")
    return "; ".join(parts) + "."


def _hover(row: pd.Series) -> str:
    return (
        f"<b>{theme.hover(row['label'])}</b><br>{readable.interval(row['gain'], row['gain_low'], row['gain_high'])}, "
        f"{row['verdict']}<br>step {readable.number(row['step_ms'], 'ms')}, peak {readable.times(row['memory_gain'])} "
        f"as large without it<br>{row['status']}"
    )
