"""Scaling: what each rank of a run did, the run's figures over all of them, and a projection to more GPUs.

A projection is no measurement and never among the metrics: it adds counted bytes over a stated link rate to the step
that one GPU was measured to take, and says so in every row.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from profiler.devices import link_of
from profiler.measure import Timing
from profiler.memory import GIB
from profiler.ranks import World
from profiler.record import Evidence, Projection, Rank
from profiler.telemetry import Energy
from profiler.traces import messages
from profiler.tracing import Trace
from profiler.workload import Workload

PROJECTED_SIZES = (2, 4, 8)


def slowest(timings: Sequence[Timing]) -> Timing:
    """The timing of the rank with the largest median: the others wait for it."""
    return max(timings, key=lambda timing: statistics.median(timing.step_ms))


def rank_row(world: World, trace: Trace, timing: Timing, peak_allocated_gib: float | None) -> Rank:
    """This rank's figures; every rank must ask, since waiting is judged by all of their traces."""
    steps = trace.num_steps
    transfers = messages.transfers_of(trace.attribution)
    work = messages.work_of(trace.attribution)
    joined = messages.joined_ns(transfers, world.gather(transfers.durations))
    exposed = messages.exposed_ns(transfers.start_ns, transfers.end_ns, work)
    waited = None if joined is None else messages.exposed_ns(transfers.start_ns, joined, work)
    sent = [message.sent_bytes(world.size) for message in messages.messages_of(trace.attribution)]
    sizes = [size for size in sent if size is not None]
    return Rank(
        rank=world.rank,
        step_ms=statistics.median(timing.step_ms),
        compute_ms=work.total_ns / steps / 1e6,
        exposed_communication_ms=exposed / steps / 1e6,
        wait_ms=None if waited is None else waited / steps / 1e6,
        communicated_bytes=round(sum(sizes) / steps) if len(sizes) == len(sent) else None,
        peak_allocated_gib=peak_allocated_gib,
    )


def merge_evidence(of_ranks: Sequence[tuple[Evidence, ...]]) -> tuple[Evidence, ...]:
    """The first rank's evidence, confirmed only if it is on every rank that could check; findings name their rank."""
    return tuple(_merged(each) for each in zip(*of_ranks, strict=True))


def _merged(each: Sequence[Evidence]) -> Evidence:
    if len(each) == 1:
        return each[0]
    verdicts = [one.confirmed for one in each if one.confirmed is not None]
    findings = dict.fromkeys(f"rank {rank}: {one.finding}" for rank, one in enumerate(each) if one.finding)
    return replace(each[0], confirmed=all(verdicts) if verdicts else None, finding="; ".join(findings))


def merge_energy(of_ranks: Sequence[Energy]) -> Energy:
    """Energy and power of all GPUs together, the highest temperature, the lowest mean clock."""
    if len(of_ranks) == 1:
        return of_ranks[0]

    def known(name: str) -> list[float] | None:
        values = [getattr(one, name) for one in of_ranks]
        return None if None in values else values

    return Energy(
        step_energy_j=sum(known("step_energy_j") or ()) or None,
        mean_power_w=sum(known("mean_power_w") or ()) or None,
        mean_sm_clock_mhz=min(known("mean_sm_clock_mhz") or (), default=None),
        max_temperature_c=max(known("max_temperature_c") or (), default=None),
        contaminated=any(one.contaminated for one in of_ranks),
    )


def fullest(of_ranks: Sequence[dict[str, Any]], samples_per_s: float) -> dict[str, Any]:
    """The memory metrics of the rank with the highest peak; samples per second and GiB over all ranks' memory."""
    found = max(of_ranks, key=lambda one: one["peak_allocated_gib"] or 0.0)
    total = sum(one["peak_allocated_gib"] or 0.0 for one in of_ranks)
    return found | {"samples_per_s_per_gib": samples_per_s / total if total else None}


def busiest_ms(of_ranks: Sequence[Rank]) -> float | None:
    """Kernel time of a step on the rank with the most to do; None where the traces do not tell waiting apart.

    A collective that waits for another rank spins on its GPU, and under a profiler for longer: that is no work.
    """
    rows = [(one.compute_ms + one.exposed_communication_ms, one.wait_ms) for one in of_ranks]
    return max((busy - waited for busy, waited in rows if waited is not None), default=None)


def project(evidence: Evidence, workload: Workload, step_ms: float, gpu_name: str | None) -> tuple[Projection, ...]:
    """What data parallelism over more GPUs would take at this batch per GPU; nothing where the link is not known."""
    link = link_of(gpu_name)
    if evidence.choice not in ("ddp", "fsdp2") or workload.world_size > 1 or link is None:
        return ()
    facts = evidence.facts
    payload = 2 * facts["gradient_bytes"] if evidence.choice == "ddp" else facts["message_bytes"]
    rows = []
    for size in PROJECTED_SIZES:
        sent = round(payload * (size - 1) / size)
        communication_ms = sent / (link.gb_per_s * 1e6)
        rows.append(
            Projection(
                world_size=size,
                batch=workload.batch * size,
                sent_bytes=sent,
                link=link.name,
                link_gb_per_s=link.gb_per_s,
                communication_ms=communication_ms,
                step_ms_hidden=max(step_ms, communication_ms),
                step_ms_exposed=step_ms + communication_ms,
                assumptions=f"projected, not measured: this run's step of {step_ms:.4g} ms on each GPU, "
                f"{sent / GIB:.3g} GiB sent per GPU and step in a ring over {link.words}; latency, stragglers and "
                "contention left out",
            )
        )
    return tuple(rows)
