"""Environment: the machine that measures, its software, and the variables that change results."""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import psutil
import pynvml
import torch

from profiler.machine import VARIABLE_PREFIXES, Machine
from profiler.memory import GIB

PACKAGES = (
    "torch", "triton", "diffusers", "xformers", "flash-attn", "flash-attn-4", "torchao", "nvidia-cuda-runtime-cu12",
    "numpy", "pyarrow", "nvidia-ml-py",
)  # fmt: skip


def probe() -> Machine:
    """Look at this machine; starts CUDA where there is one."""
    has_cuda = torch.cuda.is_available()
    packages = {name: version for name in PACKAGES if (version := _version(name))}
    common = {
        "cpu_name": _cpu_name(),
        "num_cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "boot_id": _boot_id(),
        "platform": platform.platform(),
        "cuda": torch.version.cuda,
        "has_cxx_compiler": any(shutil.which(name) for name in ("g++", "c++", "clang++")),
        "packages": packages,
    }
    if not has_cuda:
        return Machine.from_dict(common | {"no_cuda_reason": _no_cuda_reason()})
    properties = torch.cuda.get_device_properties(0)
    return Machine.from_dict(
        common
        | {
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
            "driver": _driver(),
            "gpu_name": properties.name,
            "gpu_uuid": str(properties.uuid),
            "gpu_memory_gib": round(properties.total_memory / GIB, 1),
            "num_gpus": torch.cuda.device_count(),
            "compute_capability": torch.cuda.get_device_capability(0),
        }
    )


def result_variables() -> dict[str, str]:
    """Environment variables that change results; values with a path are left out, since records travel."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(VARIABLE_PREFIXES) and "/" not in value
    }


def git_commit() -> str | None:
    """The commit of this checkout of Steplens, with '+' when it has changes.

    Outside a checkout it is $STEPLENS_COMMIT, or None.
    """
    root = Path(__file__).parent.parent
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("STEPLENS_COMMIT")
    return commit.strip() + ("+" if changed.stdout.strip() else "")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _no_cuda_reason() -> str:
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    return "torch sees no NVIDIA GPU or driver"


def _driver() -> str | None:
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="utf-8").strip() if path.exists() else str(int(psutil.boot_time()))
