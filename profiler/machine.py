"""Machine: the facts about a computer that decide which choices are possible on it."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

VARIABLE_PREFIXES = (  # of the environment variables that change results
    "CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_TF32", "NCCL_", "TORCH_", "TORCHINDUCTOR_", "TORCHDYNAMO_", "PYTORCH_",
    "XFORMERS_", "FLASH_ATTENTION_", "TRITON_", "OMP_", "MKL_",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a probe worker found; the form reads it from machine.json without importing torch."""

    cpu_name: str
    num_cpus: int
    memory_gib: float
    python: str
    torch: str
    boot_id: str  # changes at every start of the machine: ratios pair runs of one boot
    platform: str = ""
    cuda: str | None = None  # CUDA version that torch was built for
    no_cuda_reason: str | None = None  # why has_cuda is false, in words
    cudnn: str | None = None
    driver: str | None = None
    gpu_name: str | None = None
    gpu_uuid: str | None = None
    gpu_memory_gib: float | None = None
    num_gpus: int = 0
    compute_capability: tuple[int, int] = (0, 0)
    has_cxx_compiler: bool = False
    packages: dict[str, str] = field(default_factory=dict)  # distribution name -> version

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Machine":
        known = {f.name for f in fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        kept["compute_capability"] = tuple(kept.get("compute_capability", (0, 0)))
        return cls(**kept)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def has_cuda(self) -> bool:
        return self.gpu_name is not None

    @property
    def capability_text(self) -> str:
        return ".".join(str(part) for part in self.compute_capability)

    @property
    def label(self) -> str:
        """The name of the device that runs: the GPU, or the CPU where there is none."""
        return self.gpu_name or self.cpu_name
