"""Headlines of a study: which run won at what, as four cards."""

import math
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import streamlit as st

from pages.charts import readable
from pages.charts.ladder import SET_BY_LAUNCHES, SET_IN_PART, WAITS_IN_PART
from pages.widgets import data
from profiler.record import ROUNDING
from store import frames

Compare = Callable[[str, tuple[str, ...]], pd.DataFrame]

AS_EAGER = 1.25  # times the error of plain eager at the same precision
NAMED = 3  # disturbed runs that a warning names
AS_LEAN = 1.01  # times the lowest peak: fragmentation alone moves one by as much
MUCH_DRIFT = 0.1  # a baseline that moved by more was disturbed, and so were the others


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    title: str
    value: str
    run: str  # which run, and its plain figure, in Markdown
    help: str


def headlines(rows: pd.DataFrame, compare: Compare, left: Container[str] = ()) -> list[Headline]:
    """The cards of one study. rows: store.frames.ladder; only candidates with status done can win. What ties with the
    winner is named beside it. compare: store.frames.comparison; left: the run ids of store.frames.departures."""
    measured = rows[(rows["status"] == "done") & rows["step_ms"].notna()]
    if measured.empty:
        return []
    done, moved = measured[measured["sweep_role"] == "candidate"], drift(measured)
    fastest = partial(_fastest, measured=measured, compare=compare, left=left)
    cards = [
        fastest("Fastest", done, help="The lowest median step time of all runs that pass their checks."),
        _leanest(done),
        fastest(
            "Fastest as exact as eager",
            done[_errs_as_eager(done)],
            help=f"The fastest whose output and gradients err at most {AS_EAGER} times as much as plain eager at the "
            "same precision, or by mere rounding more. The precision itself costs what the error says; what many "
            "steps of training make of it the curve of the loss shows, not this.",
        ),
        _drift(moved),
    ]
    return [_qualified(card, moved) if card.title.startswith("Fastest") else card for card in cards]


def _departed(run_id: str, left: Container[str]) -> str:
    """That a run's loss leaves the others', with the way to the sentence about it; empty where it does not."""
    return f"**its loss leaves the others'**, see [its run](/run?run={run_id}) · " if run_id in left else ""


def drift(rows: pd.DataFrame) -> float | None:
    """How far the repeated baseline moved, where it was repeated. rows: store.frames.ladder or comparison."""
    farthest = float(rows["drift"].astype(float).max())
    return None if math.isnan(farthest) else farthest


def _qualified(card: Headline, moved: float | None) -> Headline:
    """A ratio to a baseline that moved says so itself: who reads one card alone reads no warning beside it."""
    if moved is None or moved <= MUCH_DRIFT:
        return card
    return replace(card, run=f"baseline drifted {readable.percent(moved)} · {card.run}")


def _fastest(
    title: str, rows: pd.DataFrame, *, measured: pd.DataFrame, compare: Compare, left: Container[str], help: str
) -> Headline:
    if rows.empty:
        return Headline(title=title, value=readable.UNKNOWN, run="no candidate qualifies", help=help)
    if rows["speedup"].notna().any() and not (rows["verdict"] == "faster").any():
        return Headline(title=title, value="none", run="no candidate is faster beyond spread and drift", help=help)
    ordered = rows.sort_values("step_ms", kind="stable")
    best = ordered.iloc[0]
    value = readable.times(best["speedup"]) if pd.notna(best["speedup"]) else readable.number(best["step_ms"], "ms")
    price = f" · output error {readable.number(best['output_error'])}" if pd.notna(best["output_error"]) else ""
    doubt = _departed(best["run_id"], left)
    for run_id, whose in ((best["run_id"], "its"), (best["baseline_run_id"], "the baseline's")):
        doubt += _unsteady(measured[measured["run_id"] == run_id], whose)
    time = readable.number(best["step_ms"], "ms")
    run = f"{doubt}{time}{price} · {best['combo_label']}{_or(_as_fast(ordered, measured, compare))}"
    return Headline(title=title, value=value, run=run, help=help)


def _unsteady(run: pd.DataFrame, whose: str) -> str:
    """That a run's own page calls it unsteady, with the way there; empty where it does not. run: one row, or none."""
    told = [
        f"**unsteady**: {readable.apart(row, whose)}, see [its run](/run?run={row.run_id}) · "
        for row in run[readable.unsteady(run)].itertuples(index=False)
    ]
    return "".join(told)


def _errs_as_eager(rows: pd.DataFrame) -> pd.Series:
    """Of output and gradients, as far as they are known; below ROUNDING a ratio of errors says nothing."""
    fits, known = pd.Series(True, rows.index), pd.Series(False, rows.index)
    for kind in ("output", "gradient"):
        error, ratio = rows[f"{kind}_error"].astype(float), rows[f"{kind}_error_ratio"].astype(float)
        fits &= ratio.isna() | (ratio <= AS_EAGER) | (error <= AS_EAGER * error / ratio + ROUNDING)
        known |= ratio.notna()
    return fits & known


def _as_fast(ordered: pd.DataFrame, measured: pd.DataFrame, compare: Compare) -> pd.DataFrame:
    """The runs whose step is the first one's within spread and drift; ordered: the fastest first."""
    # of all runs, so that two cards with one winner ask the same
    against = compare(ordered["run_id"].iloc[0], tuple(measured["run_id"]))
    return ordered.iloc[1:][lambda rows: rows["run_id"].isin(against.loc[against["verdict"] == "same", "run_id"])]


def _or(ties: pd.DataFrame) -> str:
    """The runs that could as well have won, the first by name."""
    if ties.empty:
        return ""
    more = f" (and {len(ties) - 1} more)" if len(ties) > 1 else ""
    return f" · or: {ties['combo_label'].iloc[0]}{more}"


def _leanest(done: pd.DataFrame) -> Headline:
    help = "The lowest peak of allocated memory of all runs that pass their checks."
    known = done.dropna(subset=["peak_allocated_gib"])
    if known.empty:
        return Headline(title="Leanest", value=readable.UNKNOWN, run="no run has its peak memory measured", help=help)
    ordered = known.sort_values(["peak_allocated_gib", "step_ms"], kind="stable")
    best = ordered.iloc[0]
    ties = ordered.iloc[1:][lambda rows: rows["peak_allocated_gib"] <= AS_LEAN * best["peak_allocated_gib"]]
    share = f"{readable.times(best['memory_ratio'])} of the baseline · " if pd.notna(best["memory_ratio"]) else ""
    return Headline(
        title="Leanest",
        value=readable.gib(best["peak_allocated_gib"]),
        run=f"{share}{best['combo_label']}{_or(ties.sort_values('step_ms', kind='stable'))}",
        help=help,
    )


def _drift(moved: float | None) -> Headline:
    help = "How far the baseline's median moved when it was run again at the end. Smaller differences are called none."
    run = "the baseline has not been repeated at the end" if moved is None else "baseline, first against last"
    return Headline(title="Drift", value=readable.percent(moved), run=run, help=help)


def answered(rows: pd.DataFrame, ask: Callable[..., pd.DataFrame]) -> list[Headline]:
    """The cards, with what they need of the store besides. ask: data.read, or data.answer where there is no page."""
    left = ask(frames.departures, tuple(rows["run_id"]))["run_id"].tolist()
    return headlines(rows, partial(ask, frames.comparison), left)


def show_headlines(rows: pd.DataFrame) -> None:
    """Draw the cards side by side, as many in a row as fit."""
    cards = answered(rows, data.read)
    if not cards:
        st.info("No run of this study is done yet, so nothing has won.", icon=":material/hourglass_empty:")
        return
    warn_of_disturbance(rows)
    with st.grid(4, min_column_width=165):
        for card in cards:
            with st.container(border=True, height="stretch", gap="xsmall", key=f"headline-{card.title}"):
                # Not st.metric: a browser fetches its code when it first meets one, and React 18 then shows it only
                # after half a second without other news, which on a first visit is when the charts are drawn.
                st.markdown(f":small[{card.title}]", help=card.help)
                st.markdown(f"**{card.value}**")
                st.caption(card.run)


def warn_of_disturbance(rows: pd.DataFrame) -> None:
    """What makes these rows' ratios doubtful: a baseline that moved, a machine that was busy. rows: ladder's or
    comparison's."""
    moved = drift(rows)
    if moved is not None and moved > MUCH_DRIFT:
        st.warning(
            f"The baseline moved by {readable.percent(moved)} while this study ran: something else may have "
            "kept the machine busy. Measure again on a quiet machine before you believe a ratio.",
            icon=":material/warning:",
        )
    _warn_of_disturbed(rows)


def _warn_of_disturbed(rows: pd.DataFrame) -> None:
    """The repeated baseline shows what moved from first to last; this, what may have moved a run between them."""
    timed = rows[rows["step_ms"].notna()]
    disturbed = timed[timed["run_id"].isin(data.read(frames.disturbed_runs, tuple(timed["run_id"])))]
    if len(disturbed):
        named = ", ".join(readable.escaped(label) for label in disturbed["combo_label"].iloc[:NAMED])
        more = f" and {len(disturbed) - NAMED} more" if len(disturbed) > NAMED else ""
        st.warning(
            f"{len(disturbed)} of {len(timed)} runs were timed while other programs used this machine's cores or GPU "
            f"({named}{more}): their own pages say more. Measure again on a quiet machine before you believe a ratio, "
            "or what follows from it.",
            icon=":material/warning:",
        )


def say_launch_bound(rows: pd.DataFrame) -> None:
    """Below the ladder: how many of its rows were set by the CPU."""
    if told := launch_bound(rows):
        st.caption(told)


def launch_bound(rows: pd.DataFrame) -> str:
    """How many rows were set by the CPU: their speedups say little of the kernels that they changed."""
    verdicts = rows["launch_verdict"].dropna()
    num_bound, num_partly = ((verdicts == verdict).sum() for verdict in ("launch-bound", "partly launch-bound"))
    of_all = f" of {len(verdicts)} rows"
    told = f"{_are(num_bound, of_all)} bound by launches: {SET_BY_LAUNCHES}. " if num_bound else ""
    if num_partly:
        whose = _are(num_partly, " more" if num_bound else of_all)
        told += f"{whose} so in part (the GPU waits {WAITS_IN_PART}): {SET_IN_PART}. "
    if not told:
        return ""
    return (
        f":material/info: {told}The percent say how much of the step the GPU waits: the more, the more of a "
        "speedup is host time. A larger batch, or CUDA graphs, would show what the kernels can do."
    )


def _are(number: int, of: str) -> str:
    return f"{number}{of} {'is' if number == 1 else 'are'}"


def baseline_of(rows: pd.DataFrame) -> str | None:
    """The run id of a study's first baseline that was timed."""
    timed = rows[(rows["sweep_role"] == "baseline") & rows["step_ms"].notna()]
    return None if timed.empty else str(timed["run_id"].iloc[0])


def why_run_ids(rows: pd.DataFrame) -> tuple[str, ...]:
    """The runs whose kernels explain a study: its baseline and its three fastest done runs, slow to fast."""
    candidates = rows[(rows["status"] == "done") & rows["step_ms"].notna() & (rows["sweep_role"] == "candidate")]
    fastest = candidates.sort_values("step_ms")["run_id"].head(3).tolist()[::-1]
    baseline = baseline_of(rows)
    return tuple([baseline, *fastest] if baseline else fastest)
