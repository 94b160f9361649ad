"""Does the recorded latency agree with torch.utils.benchmark?

Run by hand: python tests/benchmarks/bench_latency.py [MODEL [DEVICE]].
The ten lines that anybody would write, beside a full run of ours of the same combo; within 3% on a GPU is the aim.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

sys.path.insert(0, str(Path(__file__).parents[2]))

from profiler import zoo
from profiler.combo import Combo
from profiler.session import profile
from profiler.subject import cast_inputs, make_inputs
from profiler.workload import Workload


def plain_ms(workload: Workload) -> float:
    """bf16 UNet with diffusers' own SDPA processor, timed by PyTorch's own tool."""
    unet = zoo.build(workload).to(torch.bfloat16)
    inputs = cast_inputs(make_inputs(unet, workload, batch=workload.batch), torch.bfloat16, torch.contiguous_format)
    with torch.no_grad():
        timer = Timer(
            "unet(inputs.sample, inputs.timestep, **inputs.condition, return_dict=False)",
            globals={"unet": unet, "inputs": inputs},
            num_threads=torch.get_num_threads(),
        )
        timer.timeit(10)
        return timer.blocked_autorange(min_run_time=3).median * 1e3


def main() -> None:
    model, device = [*sys.argv[1:], *("tiny", "cpu")[len(sys.argv) - 1 :]]
    for batch in (2, 8):
        workload = Workload(model=model, device=device, batch=batch, min_seconds=3.0)
        with tempfile.TemporaryDirectory() as folder:
            combo = Combo(attention="sdpa", precision="bf16")
            record = profile(combo, workload, Path(folder), run_id="bench", references=Path(folder))
        theirs, ours = plain_ms(workload), record.metrics.step_ms
        assert ours is not None, record.cause
        print(f"{workload.label}: ours {ours:.3f} ms, torch.utils.benchmark {theirs:.3f} ms, ratio {ours / theirs:.3f}")


if __name__ == "__main__":
    main()
