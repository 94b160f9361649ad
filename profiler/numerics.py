"""Numerics: the price of a combo in output and gradient error, against a reference of higher precision.

The reference is plain eager math attention in fp64, or strict fp32 where fp64 does not fit the device, with the same
weights and the first samples of the same inputs. It is made once per workload, together with the error of plain eager
at every precision that the device has: a candidate's error is judged relative to that, as FlashAttention's
own tests (at most twice the error of plain PyTorch in the same dtype, plus a small absolute tolerance). 8-bit layers
round more than any precision: their yardstick is plain eager with the same layers' products rounded to 8 bits by
profiler/optims/simulated.py.

Gradients are compared on a fixed random sample of up to 16,384 elements of each parameter (all of a smaller one),
weighted back to the parameter's size, so that a reference of SD1.5 is 45 MB and not 3.4 GB.
"""

import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from profiler import dropout, zoo
from profiler.combo import BASELINE, Combo, choices
from profiler.environment import probe
from profiler.joined import named_gradients
from profiler.machine import Machine
from profiler.memory import GIB
from profiler.optims import apply_all
from profiler.optims.quantization_layers import choose
from profiler.optims.simulated import simulate
from profiler.record import ROUNDING, write_json
from profiler.replay import Replay
from profiler.steps import forward_and_backward, make_step, no_phase, num_own
from profiler.subject import Inputs, Subject, UNet, cast_inputs, make_inputs, resolve_resolution
from profiler.why_not import why_not
from profiler.workload import Workload

GRADIENT_SAMPLE = 16_384
MAX_RATIO = 2.0
FP32_LIMIT = 1e-3  # tf32's own rounding; where plain eager's error is unknown
QUANTIZED_LIMIT = 0.3  # for 8 bits whatever the yardstick says: a wrong scale in every layer is beyond it
REFERENCE_VERSION = 1
REFERENCE_FILE, TENSOR_FILE = "reference.json", "reference.safetensors"


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """What the error check compares: output (fidelity batch first), loss and sampled gradients, all fp64 on the CPU."""

    output: Tensor
    loss: float | None
    gradients: dict[str, Tensor]
    latents: Tensor | None = None  # in mode=sample: (steps, fidelity batch, channels, height, width)


@dataclass(frozen=True, kw_only=True, slots=True)
class Errors:
    """Relative L2 errors against the reference; gradient_* is None without a backward."""

    output_error: float
    output_cosine: float
    gradient_error: float | None = None
    worst_gradient: tuple[str, float] | None = None  # parameter with the largest error of its own


class NoReference(Exception):  # noqa: N818, a note of the record rather than an error
    """There is no reference to compare with; the message says why."""


def run_once(
    subject: Subject, inputs: Inputs, size: int, latents: list[Tensor] | None = None, *, keeps_text: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Run the subject on inputs whose first `size` samples are the reference's: (output, loss), gradients in place.

    In training the loss is the mean over these samples alone, so that gradients do not depend on the batch, and
    dropout is off, whose masks no two runs share. In sampling `latents` gets those of every step.
    """
    if subject.workload.mode != "train":
        return make_step(subject, seen=latents, keeps_text=keeps_text)(inputs, no_phase), None

    def train(inputs: Inputs) -> tuple[Tensor, Tensor]:
        subject.unet.zero_grad(set_to_none=True)
        return forward_and_backward(subject, inputs, size=size)

    with dropout.switched_off(subject.unet):
        if not subject.records_steps:
            return train(inputs)
        found = Replay(train)(inputs)  # a graph of its own: the step's would change the weights
        torch.cuda.synchronize()  # before the graph goes out of scope
        return found


def collect(
    subject: Subject, output: Tensor, loss: Tensor | None, size: int, latents: Sequence[Tensor] = ()
) -> Fidelity:
    """Copy what run_once left to the CPU, and drop the gradients. Of several ranks each gets the whole."""
    factor = 1.0 / subject.scaler.get_scale() if subject.scaler else 1.0
    parallel = subject.parallel
    gradients = {
        name: _keep(_sampled(name, parallel.whole(name, gradient))) * factor
        for name, gradient in named_gradients(subject.unet)
    }
    subject.unet.zero_grad(set_to_none=True)
    kept_loss = None if loss is None else float(loss.detach())
    seen = torch.stack([_keep(one[:size]) for one in latents]) if latents else None
    kept = _keep(output[: num_own(subject, size)])
    own = Fidelity(output=kept, loss=kept_loss, gradients=gradients, latents=seen)
    return _merge(subject, parallel.world.gather(own), size)


def _merge(subject: Subject, ranks: list[Fidelity], size: int) -> Fidelity:
    """One Fidelity of what the ranks have: samples in turn, or stages."""
    parallel = subject.parallel
    if parallel.pipeline:
        return replace(ranks[-1], gradients={name: g for rank in ranks for name, g in rank.gradients.items()})
    if not parallel.splits_batch:
        return ranks[0]
    rows = [ranks[row % len(ranks)].output[row // len(ranks)] for row in range(size)]
    losses = [rank.loss for rank in ranks if rank.loss is not None]
    return replace(ranks[0], output=torch.stack(rows), loss=sum(losses) / len(losses) if losses else None)


def compare(found: Fidelity, reference: Fidelity, sizes: dict[str, int]) -> Errors:
    """Errors of one run against the reference. `sizes` holds each parameter's number of elements."""
    difference = found.output - reference.output
    cosine = torch.nn.functional.cosine_similarity(found.output.flatten(), reference.output.flatten(), dim=0)
    output_error = _ratio(float(difference.norm()), float(reference.output.norm()))
    if not reference.gradients:
        return Errors(output_error=output_error, output_cosine=float(cosine))
    squares, norms, worst = 0.0, 0.0, ("", 0.0)
    for name, expected in reference.gradients.items():
        weight = sizes[name] / expected.numel()
        given = found.gradients.get(name, torch.zeros_like(expected))  # a parameter left without gradient
        error, norm = float((given - expected).norm()), float(expected.norm())
        squares, norms = squares + weight * error**2, norms + weight * norm**2
        own = _ratio(error, norm)
        if not own <= worst[1] and not math.isnan(worst[1]):  # a NaN is the worst of all
            worst = (name, own)
    return Errors(
        output_error=output_error,
        output_cosine=float(cosine),
        gradient_error=_ratio(math.sqrt(squares), math.sqrt(norms)) if math.isfinite(squares) else math.nan,
        worst_gradient=worst,
    )


def latents_errors(found: Fidelity, reference: Fidelity) -> list[float | None]:
    """Relative L2 error after each step of a sampling loop; None where it is not finite. Empty in other modes."""
    if found.latents is None or reference.latents is None:
        return []
    pairs = zip(found.latents, reference.latents, strict=True)
    return [_finite(_ratio(float((one - right).norm()), float(right.norm()))) for one, right in pairs]


def is_wrong(error: float | None, eager_error: float | None, precision: str) -> bool:
    """Whether an error fails the check; a NaN always does.

    Without an error of plain eager there is no yardstick: the reference is strict fp32 itself, or plain eager
    overflowed at this precision. Then fp32 and tf32 must be within FP32_LIMIT, and 16 bits finite.
    """
    if error is None:
        return False
    if eager_error is not None:
        return not error <= MAX_RATIO * eager_error + ROUNDING
    return not error <= FP32_LIMIT if precision in ("fp32", "tf32") else not math.isfinite(error)


def is_wrong_in_8_bits(error: float | None, simulated: float | None) -> bool:
    """The same for quantized layers: at most twice the error of the simulation, and always within QUANTIZED_LIMIT."""
    if error is None:
        return False
    limit = QUANTIZED_LIMIT if simulated is None else min(QUANTIZED_LIMIT, MAX_RATIO * simulated + ROUNDING)
    return not error <= limit


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A stored reference: tensors, the errors of plain eager at every precision, and of its simulated 8-bit layers."""

    fidelity: Fidelity
    sizes: dict[str, int]
    facts: dict[str, Any]

    def eager_error(self, precision: str, name: str) -> float | None:
        value = self.facts["eager"].get(precision, {}).get(name)
        return None if value is None else float(value)

    def simulated_error(self, combo: Combo, name: str) -> float | None:
        """None where the reference is older than quantization, or the device had no use for it."""
        value = self.facts.get("simulated", {}).get(_simulation(combo), {}).get(name)
        return None if value is None else float(value)


def load_reference(folder: Path, unet: UNet) -> Reference:
    """Read a reference. Raises NoReference when there is none, or it was made from other weights."""
    path = folder / REFERENCE_FILE
    if not path.is_file():
        raise NoReference("no reference was made for this workload: submit it again through a sweep or `run`")
    facts = json.loads(path.read_text(encoding="utf-8"))
    if facts.get("version") != REFERENCE_VERSION or facts["fingerprint"] != fingerprint(unet):
        raise NoReference("the stored reference has other weights: delete its folder in references/ and run again")
    tensors = load_file(folder / TENSOR_FILE)
    gradients = {name.removeprefix("grad."): t.double() for name, t in tensors.items() if name.startswith("grad.")}
    fidelity = Fidelity(
        output=tensors["output"].double(), loss=facts["loss"], gradients=gradients, latents=tensors.get("latents")
    )
    return Reference(fidelity=fidelity, sizes=facts["sizes"], facts=facts)


def make_reference(workload: Workload, folder: Path, progress: Callable[[str, str], None]) -> None:
    """Make a workload's reference and the errors of plain eager at each precision.

    Writes reference.safetensors and then, by rename, reference.json. Raises what building or running raises,
    torch.OutOfMemoryError included.
    """
    progress("build", workload.label)
    workload, machine = replace(workload, world_size=1), probe()
    if reason := why_not(BASELINE, workload, machine):
        raise ValueError(reason)
    unet = zoo.build(workload)
    workload = replace(workload, batch=workload.fidelity_batch, resolution=resolve_resolution(unet, workload))
    dtype = torch.float64 if _fits_fp64(unet, workload, machine.gpu_memory_gib) else torch.float32
    marks, sizes = fingerprint(unet), {name: p.numel() for name, p in unet.named_parameters()}
    progress("reference", f"plain eager in {str(dtype).removeprefix('torch.')}")
    reference = _plain(unet, workload, "fp32", dtype)
    del unet
    eager: dict[str, dict[str, Any]] = {}
    for precision in choices("precision"):
        if why_not(Combo(precision=precision), workload, machine):  # type: ignore[arg-type]
            continue
        if precision == "fp32" and dtype is torch.float32:
            continue  # it is the reference itself
        progress("reference", f"plain eager in {precision}")
        plain = _plain(zoo.build(workload), workload, precision)
        errors = _finite_errors(compare(plain, reference, sizes))
        eager[precision] = errors | {"latents_error": latents_errors(plain, reference)}
    simulated = {}
    for combo in _quantized_combos(workload, machine):
        progress("reference", f"simulated {_simulation(combo)}")
        found = _plain(zoo.build(workload), workload, combo.precision, quantization=combo.quantization)
        simulated[_simulation(combo)] = _finite_errors(compare(found, reference, sizes))
    errors_of = {"eager": eager, "simulated": simulated}
    _write(folder, reference, workload, dtype, {"fingerprint": marks, "sizes": sizes} | errors_of)


def _quantized_combos(workload: Workload, machine: Machine) -> list[Combo]:
    """Each precision with each kind of 8-bit layers that it may have here, now or once torchao is installed."""
    machine = replace(machine, packages=machine.packages | {"torchao": "0.18.0"})
    combos = [
        Combo(precision=precision, quantization=kind)  # type: ignore[arg-type]
        for kind in choices("quantization")[1:]
        for precision in choices("precision")
    ]
    return [combo for combo in combos if why_not(combo, workload, machine) is None]


def _simulation(combo: Combo) -> str:
    return f"{combo.precision} {combo.quantization}"


def _finite_errors(errors: Errors) -> dict[str, float | None]:
    return {name: _finite(getattr(errors, name)) for name in ("output_error", "gradient_error")}


def fingerprint(unet: UNet) -> str:
    """A checksum of the weights' names, shapes and a few values of each, to tell models apart."""
    crc = 0
    for name, parameter in sorted(unet.named_parameters()):
        values = parameter.detach().flatten()[:8].double().cpu().tolist()
        crc = zlib.crc32(f"{name}{tuple(parameter.shape)}{[f'{v:.6e}' for v in values]}".encode(), crc)
    return f"{crc:08x}"


def _plain(
    unet: UNet, workload: Workload, precision: str, dtype: torch.dtype | None = None, quantization: str = "none"
) -> Fidelity:
    """Plain eager math attention at one precision, or in a given dtype; with simulated 8-bit layers if asked."""
    subject = Subject(unet=unet.train(workload.mode == "train"), workload=workload, call=unet)
    subject, _ = apply_all(subject, Combo(precision=precision))  # type: ignore[arg-type]
    if dtype is not None:
        subject = replace(subject, dtype=dtype, unet=subject.unet.to(dtype))
    if quantization != "none":
        simulate(choose(subject.unet, workload).chosen.values(), quantization)
    inputs = cast_inputs(make_inputs(unet, workload, batch=workload.batch), subject.dtype, subject.memory_format)
    latents: list[Tensor] = []
    # keeps_text: the reference owes nothing to what a candidate spares itself
    output, loss = run_once(subject, inputs, workload.batch, latents, keeps_text=False)
    return collect(subject, output, loss, workload.batch, latents)


def _fits_fp64(unet: UNet, workload: Workload, gpu_memory_gib: float | None) -> bool:
    """Whether weights (and gradients) in fp64 take at most a quarter of the device; activations need the rest."""
    if gpu_memory_gib is None:
        return True  # CPU: slow but right; only small models are run there
    copies = 2 if workload.mode == "train" else 1
    num_parameters: int = sum(p.numel() for p in unet.parameters())
    return num_parameters * 8 * copies <= 0.25 * gpu_memory_gib * GIB


def _sampled(name: str, gradient: Tensor) -> Tensor:
    # In the order of the parameter's logical index, whatever its memory format is.
    flat = gradient.detach().reshape(-1)
    if flat.numel() <= GRADIENT_SAMPLE:
        return flat
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    index = torch.randint(flat.numel(), (GRADIENT_SAMPLE,), generator=generator)
    return flat[index.to(flat.device)]


def _write(folder: Path, reference: Fidelity, workload: Workload, dtype: torch.dtype, facts: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"output": reference.output} | {f"grad.{name}": g.float() for name, g in reference.gradients.items()}
    tensors |= {} if reference.latents is None else {"latents": reference.latents}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / TENSOR_FILE)
    facts |= {
        "version": REFERENCE_VERSION,
        "dtype": str(dtype).removeprefix("torch."),
        "fidelity_batch": workload.batch,
        "loss": reference.loss,
        "workload": workload.to_dict() | {"model": workload.model_label},
        "torch": torch.__version__,
    }
    write_json(folder / REFERENCE_FILE, facts)


def _keep(tensor: Tensor) -> Tensor:
    return tensor.detach().double().cpu()


def _ratio(error: float, norm: float) -> float:
    return error / norm if norm > 0 else (0.0 if error == 0 else math.inf)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
