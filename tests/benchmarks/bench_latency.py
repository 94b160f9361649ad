"""Does our timing agree with torch.utils.benchmark on the same module?

Run by hand: python tests/benchmarks/bench_latency.py [MODEL [DEVICE]].
Ours and PyTorch's own tool take turns on one prepared UNet, because an eager UNet is bound by the CPU at small batches
and a CPU's speed wanders; within 3% on a GPU is the aim. Both time ten steps between two synchronisations, as a sampler
runs them; the last column is the latency of a step alone, with a synchronisation before and after it. On a GPU the same
UNet is timed as a CUDA graph, too: there no processor's mood enters, so that the two clocks alone are compared.
"""

import statistics
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

sys.path.insert(0, str(Path(__file__).parents[2]))

from profiler import measure, zoo
from profiler.clock import clock_for
from profiler.combo import Combo
from profiler.optims import apply_all
from profiler.steps import make_step, no_phase
from profiler.subject import Subject, cast_inputs, make_inputs
from profiler.workload import Workload

ROUNDS = 7
EAGER = Combo(attention="sdpa", precision="bf16")
GRAPH = replace(EAGER, cuda_graphs="whole_step")


def compare(workload: Workload, combo: Combo) -> str:
    unet = zoo.build(workload)
    subject, _ = apply_all(Subject(unet=unet, workload=workload, call=unet), combo)
    inputs = cast_inputs(make_inputs(unet, workload, batch=workload.batch), subject.dtype, subject.memory_format)
    step, clock = make_step(subject), clock_for(workload.device)
    names = {"step": step, "inputs": inputs, "no_phase": no_phase}
    timer = Timer("step(inputs, no_phase)", globals=names, num_threads=torch.get_num_threads())  # its default is one

    def ours_ms() -> float:
        timing = measure.time_steps(step, [inputs], clock, min_samples=3 * measure.CHUNK, min_seconds=0)
        return statistics.median(timing.step_ms)

    def theirs_ms(steps: int, repeats: int) -> float:
        return statistics.median(timer.timeit(steps).mean * 1e3 for _ in range(repeats))

    measure.warm_up(step, [inputs], clock, min_seconds=2.0)
    rounds = [(ours_ms(), theirs_ms(measure.CHUNK, 3), theirs_ms(1, 10)) for _ in range(ROUNDS)]
    ours, theirs, alone = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratios = sorted(a / b for a, b, _ in rounds)
    return (
        f"{workload.label}, {combo.label}: ours {ours:.3f} ms, torch.utils.benchmark {theirs:.3f} ms, ratio "
        f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}); a step alone {alone:.3f} ms"
    )


def main() -> None:
    model, device = [*sys.argv[1:], *("tiny", "cpu")[len(sys.argv) - 1 :]]
    for batch in (2, 8):
        for combo in (EAGER, GRAPH) if device == "cuda" else (EAGER,):
            print(compare(Workload(model=model, device=device, batch=batch), combo))


if __name__ == "__main__":
    main()
