"""Compilation: torch.compile of the whole UNet.

An eager SD1.5 forward launches about 800 operators; at small batches the GPU waits for the CPU. Inductor fuses norms,
activations and element-wise chains into Triton kernels, chooses layouts for the convolutions, and

- default: launches what it generated one kernel at a time;
- reduce_overhead: records the step as CUDA graphs and replays them, which removes the launch cost;
- max_autotune: the same, and times candidate kernels for every matmul and convolution shape.

Cost: 40 s to many minutes at the first call, again whenever a shape changes (dynamic=False here: one shape, the
fastest code). Source: arXiv 10.1145/3620665.3640366 (PyTorch 2), torch.compile's documentation.
"""

from dataclasses import replace

import torch
import torch._inductor.config as inductor

from profiler.record import Evidence
from profiler.subject import Subject

_MODES = {"default": "default", "reduce_overhead": "reduce-overhead", "max_autotune": "max-autotune"}
_REGION = {"compiled regions": r"Torch-Compiled Region|CompiledFxGraph|CompiledFunction"}
_TRITON = {"Triton kernels": r"^triton_(poi|red|per|tem|mm|conv)"}
_GRAPHS = {"graph launches": r"cudaGraphLaunch|cuGraphLaunch"}


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Replace what a step calls by the compiled UNet; nothing is compiled before the first call."""
    if choice == "eager":
        # torchao compiles the update of its optimizer by itself.
        excluded = _GRAPHS if subject.combo.optimizer == "adamw_8bit" else _REGION | _TRITON | _GRAPHS
        return subject, Evidence(family="compilation", choice=choice, must_not_appear=excluded)
    torch._dynamo.reset()
    on_gpu = subject.workload.device == "cuda"
    uses_graphs = on_gpu and choice != "default"
    facts: dict[str, object] = {"mode": _MODES[choice], "dynamic": False}
    if not on_gpu and subject.workload.mode == "train":
        facts["layout_optimization"] = _keep_cpu_gradients()
    compiled = torch.compile(subject.unet, mode=_MODES[choice], dynamic=False)
    return replace(subject, call=compiled, uses_graphs=uses_graphs), Evidence(
        family="compilation",
        choice=choice,
        facts=facts,
        must_appear=(_TRITON if on_gpu else _REGION) | (_GRAPHS if uses_graphs else {}),
        must_not_appear={} if uses_graphs else _GRAPHS,
    )


def _keep_cpu_gradients() -> bool:
    """Switch Inductor's layout optimization off: on a CPU, torch 2.13 loses gradients with it.

    Seen on UNets of two and three levels: every parameter before the last up block gets a zero or partial gradient
    (docs/LOG.md tells how it was found). Removable once the gradient check passes without it on a newer torch.
    """
    inductor.layout_optimization = False
    return False
