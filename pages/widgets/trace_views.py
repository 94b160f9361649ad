"""The closer looks at a run's trace; each says why it is empty."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.charts import kernels, network, readable, roofline, steps
from pages.widgets import data, tables
from pages.widgets.chart import is_dark, show_chart
from store import frames, views

MOST_OVERHEAD = 1.15  # traced over timed step, beyond which the path is the profiler's as much as the run's
Column = st.column_config
Summary = dict[str, Any]  # store.views.summary, and per: what its sums are of


def show_modules(run_id: str, summary: Summary) -> None:
    """The module tree, the UNet's blocks, attention by resolution."""
    tree = data.read(views.modules, run_id, _choose_phase(run_id) if summary["knows_modules"] else None)
    show_chart(network.icicle(tree, dark=is_dark()), tree, key="run_modules", name="modules", of=run_id)
    if not summary["knows_modules"]:
        st.caption(why_empty(summary, "modules", "Most of this trace's work has no module."))
    with st.grid(2, min_column_width=480, gap="medium"):
        blocks = data.read(views.blocks, run_id)
        show_chart(network.block_bars(blocks, dark=is_dark()), blocks, key="run_blocks", name="blocks", of=run_id)
        shapes = data.read(views.attention, run_id)
        show_chart(network.attention_bars(shapes, dark=is_dark()), shapes, key="run_attention", name="attn", of=run_id)
        if unseen := network.without_shape(shapes, data.read(frames.kernel_categories, (run_id,))):
            st.caption(unseen)
    forwards = data.read(views.forwards, run_id)
    if len(forwards) > summary["num_steps"]:
        figure = network.forward_bars(forwards, dark=is_dark())
        show_chart(figure, forwards, key="run_forwards", name="denoising-steps", of=run_id)


def _choose_phase(run_id: str) -> str | None:
    """One phase for the module tree, where the step has several with modules; None is all."""
    phases = data.read(views.phase_parts, run_id)["phase"].dropna().unique().tolist()
    phases = [phase for phase in phases if phase != "optimizer"]
    if len(phases) < 2:
        return None
    chosen = st.segmented_control("Phase", ["all", *phases], default="all", required=True, key="run_phase")
    return None if chosen == "all" else str(chosen)


def show_kernels(run_id: str, summary: Summary) -> None:
    """Classes, Tensor Cores, then every kernel with its launch."""
    rows = data.read(views.kernel_kinds, run_id)
    categories = data.read(frames.kernel_categories, (run_id,))
    with st.grid(2, min_column_width=480, gap="medium"):
        figure = kernels.breakdown(categories, dark=is_dark())
        show_chart(figure, categories, key="run_categories", name="kernel-time", of=run_id)
        with st.container():
            _show_tensor_cores(data.read(views.tensor_cores, run_id), summary)
    on_gpu = summary["on_gpu"]
    columns = {
        "name": Column.TextColumn("Kernel" if on_gpu else "Operator", width="large"),
        "category": Column.TextColumn("Category", width=100),
        "step_ms": Column.NumberColumn(f"{summary['per']} (ms)", format="%.3f"),
        "share": Column.ProgressColumn("Share", format="percent", max_value=float(rows["share"].max() or 1)),
        "num_calls": Column.NumberColumn("Calls", format="%.0f"),
        "mean_us": Column.NumberColumn("Mean (µs)", format="%.1f"),
        "op": Column.TextColumn("Launched by"),
        "grid": Column.TextColumn("Grid"),
        "block": Column.TextColumn("Block"),
        "registers": Column.NumberColumn("Registers"),
        "shared_kib": Column.NumberColumn("Shared (KiB)", format="%.0f"),
        "occupancy_percent": Column.NumberColumn("Occupancy (est. %)", format="%.0f"),
        "tensor_cores": Column.TextColumn("Tensor Cores"),
    }
    _table(rows, columns)
    _say_cut(summary, "kernel_kinds")
    if on_gpu:
        st.caption("Occupancy is kineto's estimate from the launch's shape; Tensor Cores are told from the name.")


def _show_tensor_cores(rows: pd.DataFrame, summary: Summary) -> None:
    """How much of the products runs on Tensor Cores, and how well that is known."""
    st.markdown("**Tensor Cores**")
    if not summary["on_gpu"] or rows.empty:
        st.caption("There are none on a CPU." if not summary["on_gpu"] else "The trace has no matmul or convolution.")
        return
    shown = rows.pivot_table(index="category", columns="tensor_cores", values="share", aggfunc="sum").fillna(0.0)
    order = [name for name in ("certain", "library", "none", "unknown") if name in shown]
    shown = shown[order].reset_index()
    columns = {name: Column.NumberColumn(name.capitalize(), format="percent") for name in order}
    columns["category"] = Column.TextColumn("Class")
    st.dataframe(shown, hide_index=True, column_config=columns, height=tables.fit(shown))
    st.caption(
        "Certain: the kernel's name holds a matrix instruction. Library: its library has such a kernel on Tensor "
        "Cores only. None: CUDA cores. Unknown: the name does not say (Triton)."
    )


def show_operators(run_id: str, summary: Summary) -> None:
    """One row per operator and shapes."""
    rows = data.read(views.operators, run_id)
    if rows.empty:
        st.caption(why_empty(summary, "operators", "The trace holds no operators."))
        return
    columns = {
        "name": Column.TextColumn("Operator", width="medium"),
        "num_calls": Column.NumberColumn("Calls", format="%.0f"),
        "device_self_ms": Column.NumberColumn("Device, self (ms)", format="%.3f"),
        "device_total_ms": Column.NumberColumn("Device, total (ms)", format="%.3f"),
        "host_self_ms": Column.NumberColumn("Host, self (ms)", format="%.3f"),
        "host_total_ms": Column.NumberColumn("Host, total (ms)", format="%.3f"),
        "shapes": Column.TextColumn("Shapes", width="large"),
        "types": Column.TextColumn("Types"),
    }
    _table(rows, columns)
    _say_cut(summary, "operators")
    st.caption("Self is without the operators inside of it; device times are of the kernels that it launched.")


def show_roofline(run_id: str, summary: Summary) -> None:
    """Dots under the ceilings, then what each lost against its floor."""
    rows = data.read(views.roofline, run_id)
    figure = roofline.roofline(rows, summary["peaks"], dark=is_dark())
    show_chart(figure, rows, key="run_roofline", name="roofline", of=run_id)
    if rows.empty:
        st.caption(why_empty(summary, "gpu", "A replayed CUDA graph names no operators, so none has FLOPs or bytes."))
        return
    known = rows[rows["roof_share"].notna()].sort_values("lost_ms", ascending=False)
    columns = {
        "name": Column.TextColumn("Operator", width="medium"),
        "step_ms": Column.NumberColumn(f"{summary['per']} (ms)", format="%.3f"),
        "lost_ms": Column.NumberColumn("Above its floor (ms)", format="%.3f"),
        "roof_share": Column.ProgressColumn("Of its roof", format="percent", max_value=1.0),
        "bound": Column.TextColumn("Bound by"),
        "num_calls": Column.NumberColumn("Calls", format="%.0f"),
        "shapes": Column.TextColumn("Shapes", width="large"),
        "dtype": Column.TextColumn("Type"),
        "tflops": Column.NumberColumn("TFLOP/s", format="%.0f"),
        "gbs": Column.NumberColumn("GB/s", format="%.0f"),
        "tensor_cores": Column.TextColumn("Tensor Cores"),
    }
    _table(known, columns)
    st.caption(
        f"Ceilings of {summary['device_name'] or 'this device'} from its datasheet. FLOPs are counted from shapes; "
        "bytes are each input and the output once, so what stays in a cache can pass the slope."
    )


def show_critical_path(run_id: str, summary: Summary) -> None:
    """The path by kind, then its kernels."""
    rows = data.read(views.critical_path, run_id)
    figure = steps.critical_bar(rows, dark=is_dark())
    show_chart(figure, rows, key="run_critical", name="critical-path", of=run_id)
    is_slowed = _warn_of_slow_trace(data.read(frames.record, run_id), summary, rows)
    own = rows[rows["kind"] == "kernel"]
    if own.empty:
        alone = "of this traced step." if is_slowed else "the host alone decides how long a step takes."
        st.caption(why_empty(summary, "gpu", f"No kernel is on the path{' ' if is_slowed else ': '}{alone}"))
        return
    columns = {
        "name": Column.TextColumn("Kernel on the path", width="large"),
        "category": Column.TextColumn("Category", width=110),
        "step_ms": Column.NumberColumn("On the path (ms)", format="%.3f"),
        "share": Column.ProgressColumn("Of the step", format="percent", max_value=float(own["share"].max() or 1)),
        "num_segments": Column.NumberColumn("Times"),
    }
    _table(own, columns)
    if not is_slowed:
        st.caption("A kernel beside the path may become faster without the step getting shorter.")


def _warn_of_slow_trace(record: Summary, summary: Summary, rows: pd.DataFrame) -> bool:
    """Whether the traced step is so much slower than the timed one that the host's share is the profiler's; says so."""
    traced_ms, timed_ms = summary["wall_ns"] / 1e6, record["metrics"]["step_ms"]
    if record["imported"] or not timed_ms or traced_ms <= MOST_OVERHEAD * timed_ms:
        return False
    share = readable.percent(float(rows.loc[rows["kind"] == "host", "share"].sum()))
    bound = {
        "gpu-bound": " Timed, this run is gpu-bound: its kernels decide, and a faster one shortens the step.",
        "partly launch-bound": " Timed, its kernels decide most of the step, and the host some, by less than this.",
        "launch-bound": " Timed, the host decides here, too, but by less than this.",
    }
    st.warning(
        f"This is the path of the traced step of {readable.number(traced_ms, 'ms')}; a timed one takes "
        f"{readable.number(timed_ms, 'ms')}. The profiler slows the host, so that its share here ({share}) is the "
        f"profiler's to a large part, and no reason to leave kernels alone.{bound.get(record['launch_verdict'], '')}",
        icon=":material/speed:",
    )
    return True


def show_launches(run_id: str, summary: Summary) -> None:
    """What it costs to start work."""
    found = summary["launches"]
    if found is None:
        st.caption(why_empty(summary, "gpu", "The trace shows no launches."))
        return
    steps_of = summary["num_steps"]
    cards = {
        f"Kernels {summary['per'].lower()}": f"{found['num_kernels'] / steps_of:,.0f}",
        f"Launches {summary['per'].lower()}": f"{found['num_launches'] / steps_of:,.0f}",
        "A launch takes the host": readable.number(_us(found["launch_ns"]), "µs"),
        "Then waits in the queue": readable.number(_us(found["queue_ns"]), "µs"),
        "Kernels under 5 µs": readable.percent(found["num_short"] / max(1, found["num_kernels"])),
        "Shorter than their launch": f"{found['num_shorter_than_launch'] / steps_of:,.0f}",
        "Deepest queue": f"{found['deepest_queue']:,}",
        "Replayed by CUDA graphs": readable.percent(found["num_in_graphs"] / max(1, found["num_kernels"])),
    }
    with st.grid(4, min_column_width=170):
        for label, value in cards.items():
            st.metric(label, value)
    st.caption(
        f"Medians over kernels. Kernels under 5 µs take {readable.number(found['short_ns'] / steps_of / 1e6, 'ms')} "
        "of a step together; a queue that is never deep means that the GPU waits for the host."
    )


def show_communication(run_id: str, summary: Summary) -> None:
    """How much of it nothing hides, then each collective."""
    told, rows = summary["overlap"], data.read(views.collectives, run_id)
    if not told["communication_ns"]:
        st.caption(why_empty(summary, "communication", "No collective ran."))
        return
    total, exposed = (told[name] / summary["num_steps"] / 1e6 for name in ("communication_ns", "exposed_ns"))
    hidden = readable.percent(1 - exposed / total)
    st.markdown(
        f"Collectives take **{readable.number(total, 'ms')}** of a step, **{hidden}** of that beside computation; "
        f"**{readable.number(exposed, 'ms')}** stand alone."
    )
    columns = {
        "collective": Column.TextColumn("Collective"),
        "kernel": Column.TextColumn("Kernel", width="medium"),
        "dtype": Column.TextColumn("Type"),
        "num_ranks": Column.NumberColumn("Ranks"),
        "message_mib": Column.NumberColumn("Message (MiB)", format="%.2f"),
        "num_calls": Column.NumberColumn("Calls", format="%.0f"),
        "step_ms": Column.NumberColumn(f"{summary['per']} (ms)", format="%.3f"),
        "bus_gbs": Column.NumberColumn("Bus (GB/s)", format="%.1f"),
    }
    if len(rows):  # gloo's are not kernels
        _table(rows, columns)


def show_health(run_id: str, summary: Summary) -> None:
    """What the trace can be trusted with: shares, findings, and why a view is empty."""
    card = summary["health"]
    shares = {
        "Events read": f"{card['num_events']:,}",
        "Without an operator": readable.percent(card["unattributed_share"]),
        "In no class": readable.percent(card["other_share"]),
        "Replayed by graphs": readable.percent(card["graph_share"]),
        "Beside other work": readable.percent(card["overlap_share"]),
    }
    with st.grid(5, min_column_width=150):
        for label, value in shares.items():
            st.metric(label, value)
    st.caption("Shares of device time. Work beside other work counts once in the step's parts.")
    if card["findings"]:
        rows = pd.DataFrame(card["findings"])[["level", "what", "count", "share", "example"]]
        columns = {
            "level": Column.TextColumn("Level", width=90),
            "what": Column.TextColumn("Finding", width="large"),
            "count": Column.NumberColumn("Number"),
            "share": Column.NumberColumn("Share", format="percent"),
            "example": Column.TextColumn("For example", width="medium"),
        }
        _table(rows, columns)
    else:
        st.success("Nothing was dropped, repaired or left unmatched.", icon=":material/check:")
    if card["why_empty"]:
        st.markdown("**What this trace cannot show**\n\n" + "\n".join(f"- {why}" for why in card["why_empty"].values()))


def why_empty(summary: Summary, view: str, otherwise: str) -> str:
    """The health card's reason, as a sentence."""
    why = summary["health"]["why_empty"].get(view)
    return f"{why[0].upper()}{why[1:]}." if why else otherwise


def _us(ns: float | None) -> float | None:
    return None if ns is None else ns / 1e3


def _table(rows: pd.DataFrame, columns: dict[str, Any]) -> None:
    shown = rows[[name for name in columns if name in rows and rows[name].notna().any()]]
    st.dataframe(shown, hide_index=True, column_config=columns, placeholder="—", height=tables.fit(shown, most=10))


def _say_cut(summary: Summary, table: str) -> None:
    """What a long table left out."""
    cut = summary["cut"].get(table)
    if cut:
        left = readable.number(cut["left_out_ns"] / summary["num_steps"] / 1e6, "ms")
        st.caption(f"The costliest 500 of {cut['num_rows']:,} rows; the others take {left} {summary['per'].lower()}.")
