"""Workload: what is run (model, mode, batch, resolution, device) and how long it is measured."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Mode = Literal["inference", "train", "sample"]
Device = Literal["cuda", "cpu"]
MODES: tuple[str, ...] = ("inference", "train", "sample")
DEVICES: tuple[str, ...] = ("cuda", "cpu")
_KINDS: dict[Any, tuple[Any, str]] = {
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ZooModel:
    """A UNet that Steplens builds from its published configuration, with random weights; or a variant of one, of
    another width or depth, that nobody has published."""

    resolution: int  # pixels of the square image that the published model was made for
    million_parameters: float
    help: str
    variant_of: str = ""  # the zoo model whose configuration is changed
    width: float = 1.0  # times its channels
    layers_per_block: int | None = None  # instead of its own


def _sd15_variant(million_parameters: float, help: str, **change: Any) -> ZooModel:
    help = f"a variant of sd15, not a published model: {help}"
    return ZooModel(resolution=512, million_parameters=million_parameters, help=help, variant_of="sd15", **change)


ZOO: dict[str, ZooModel] = {
    "tiny": ZooModel(
        resolution=128,
        million_parameters=3.2,
        help="a small conditional UNet in SD1.5's shape, for a CPU or a first look",
    ),
    "ddpm-cifar10": ZooModel(
        resolution=32, million_parameters=35.7, help="google/ddpm-cifar10-32, pixel space, unconditional"
    ),
    "sd15": ZooModel(resolution=512, million_parameters=859.5, help="Stable Diffusion 1.5, head dims 40, 80 and 160"),
    "sd2": ZooModel(resolution=512, million_parameters=865.9, help="Stable Diffusion 2 base, head dim 64"),
    "sdxl": ZooModel(resolution=1024, million_parameters=2567.5, help="Stable Diffusion XL base, head dim 64"),
    "sd15-w0.5": _sd15_variant(219.8, "half the channels in 4 heads, the same head dims", width=0.5),
    "sd15-w0.8": _sd15_variant(553.2, "0.8 times the channels, head dims 32, 64 and 128", width=0.8),
    "sd15-w1.5": _sd15_variant(1919.2, "1.5 times the channels in 12 heads, the same head dims", width=1.5),
    "sd15-d1": _sd15_variant(579.4, "one layer per block instead of two", layers_per_block=1),
    "sd15-d3": _sd15_variant(1139.7, "three layers per block instead of two", layers_per_block=3),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What one run computes. A step is one denoising forward (inference), one forward, loss,
    backward and optimiser step (train), or a whole image batch (sample)."""

    model: str = field(
        default="tiny",
        metadata={
            "help": f"{', '.join(ZOO)} (sd15-*: of another width or depth, not published); "
            "or a local folder in diffusers' layout (with weights); "
            "or module:factory, a function that returns your own UNet."
        },
    )
    mode: Mode = field(
        default="inference",
        metadata={"help": "inference: one denoising forward. train: a training step. sample: a whole sampling loop."},
    )
    batch: int = field(
        default=2,
        metadata={
            "help": "Samples per step, over all processes together. Classifier-free guidance in mode=sample doubles "
            "what the UNet sees."
        },
    )
    resolution: int = field(
        default=0, metadata={"help": "Image side in pixels; 0 takes the model's own (512 for sd15)."}
    )
    device: Device = field(default="cuda", metadata={"help": "cuda or cpu."})
    world_size: int = field(
        default=1,
        metadata={
            "help": "Processes that share each step, one GPU each (on a CPU, its cores); over 1 needs a parallelism."
        },
    )
    num_inference_steps: int = field(default=20, metadata={"help": "Scheduler steps in mode=sample."})
    guidance_scale: float = field(
        default=7.5, metadata={"help": "Classifier-free guidance in mode=sample; 1 switches it off."}
    )
    dataset_size: int = field(
        default=50_000, metadata={"help": "Samples in one epoch, for the time per epoch (CIFAR-10 has 50,000)."}
    )
    min_samples: int = field(default=20, metadata={"help": "Time at least this many steps (at most 2000)."})
    min_seconds: float = field(default=2.0, metadata={"help": "Time for at least this many seconds."})
    curve_steps: int = field(
        default=100,
        metadata={"help": "Training steps whose loss is kept as a curve (for at most 3 x min_seconds); 0 for none."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of the random weights and inputs."})

    def __post_init__(self) -> None:
        for f in fields(self):
            kinds, words = _KINDS.get(f.type, (object, ""))
            value = getattr(self, f.name)
            _check(isinstance(value, kinds) and value is not True, f"{f.name} must be {words}, not {value!r}")
        _check(self.mode in MODES, f"unknown mode {self.mode!r}: choose one of {', '.join(MODES)}")
        _check(self.device in DEVICES, f"unknown device {self.device!r}: choose one of {', '.join(DEVICES)}")
        for name in ("batch", "world_size", "num_inference_steps", "dataset_size", "min_samples"):
            _check(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")
        _check(self.min_samples <= 2000, f"min_samples must be at most 2000, not {self.min_samples}")
        _check(self.min_seconds >= 0, f"min_seconds must not be negative, not {self.min_seconds}")
        _check(self.curve_steps >= 0, f"curve_steps must not be negative, not {self.curve_steps}")
        _check(self.resolution >= 0, f"resolution must not be negative, not {self.resolution}")
        _check(bool(self.model.strip()), f"model is empty: choose one of {', '.join(ZOO)}")
        if self.resolution == 0 and self.model in ZOO:
            object.__setattr__(self, "resolution", ZOO[self.model].resolution)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Workload":
        """A Workload from its JSON form. Raises ValueError for an unknown field or a bad value."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        _check(not unknown, f"unknown workload field {', '.join(unknown)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def is_custom(self) -> bool:
        """Whether the model is the user's own (folder or module:factory)."""
        return self.model not in ZOO

    @property
    def model_label(self) -> str:
        """The model's name without its path."""
        return self.model if ":" in self.model else self.model.rstrip("/").rsplit("/", 1)[-1]

    @property
    def label(self) -> str:
        """E.g. 'sd15 inference b2 512 px cuda'."""
        size = f" {self.resolution} px" if self.resolution else ""
        return f"{self.model_label} {self.mode} b{self.batch}{size} {self.device}"

    @property
    def fidelity_batch(self) -> int:
        """How many samples of the batch are compared with the reference: the first one or two."""
        return min(self.batch, 2)

    @property
    def reference_key(self) -> str:
        """Names the numerical reference: equal for workloads whose first outputs must agree."""
        names = ("model", "mode", "resolution", "device", "seed", "fidelity_batch")
        same = {name: getattr(self, name) for name in names}
        if self.mode == "sample":
            same |= {"steps": self.num_inference_steps, "guidance": self.guidance_scale, "sampler": 2}
        digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.mode}-{digest}"


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
