"""What every test shares: reasons to skip, one thread per xdist worker for whoever loads torch, Inductor's options."""

import gc
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steplens", deadline=None)  # a busy machine stretches any example
settings.load_profile("steplens")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def pytest_configure(config: pytest.Config) -> None:
    # torch, streamlit and the tests are half a million objects: the collector of cycles, which walks over all of them
    # again and again, took a second of their import and a sixth of the time of tests that run whole sessions. It rests
    # until pytest_collection_finish.
    gc.set_threshold(0)
    # With -n 2, two processes of two threads each would fight over two cores. torch reads this when it is imported,
    # here and in every process that a test starts.
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
        return
    # Without bytecode each of a hundred processes would compile our sources anew, half a second for a worker's.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # A kernel costs g++ a second, most of it for vector types and for symbols that nobody debugs. Few tests need those
    # (tests/support/vectors.py); the others ask what was compiled, not how fast that is. The last option counts: these.
    folder = Path(tempfile.mkdtemp(prefix="steplens-inductor-"))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    linker = " -fuse-ld=gold" if shutil.which("ld.gold") else ""
    os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "0")
    os.environ.setdefault("TORCHINDUCTOR_CPP_MARCH", f"native -O1 -g0 -w{linker}")
    if shutil.which("g++"):
        _link_quickly(folder, linker.strip())
    # One cache for all tests of one call, empty when it begins. Runs of their own process keep their empty caches
    # (profiler.session), since how long they take to compile is what they measure.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "cache"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: one of minutes that starts last would be waited for by everybody."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What is imported by now stays to the end: the collector of cycles need not look at it any more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.hookimpl(tryfirst=True)  # before any skipif, which would hide a missing browser
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and (reason := _why_no_gpu()):
        pytest.skip(reason)
    if item.get_closest_marker("browser") and not _has_browser():
        reason = "no Chromium on this machine (Debian: apt-get install chromium)"
        if os.environ.get("STEPLENS_REQUIRE_BROWSER") == "1":
            pytest.fail(f"STEPLENS_REQUIRE_BROWSER=1, but {reason}")
        pytest.skip(reason)


def _link_quickly(folder: Path, option: str) -> None:
    """A kernel's linker reads nothing of what torch exports, which took a quarter of its time.

    An empty library stands before torch's three under their names and is called libtorch_python.so in itself: a loaded
    kernel finds its symbols in the one of that name which the process has, and in those that one needs. A linker in
    COMPILER_PATH is g++'s own; an option would be one more of those by which Inductor tells its compiled headers apart.
    A kernel is told by its name and by the option before its end (torch 2.13); nothing else is linked in another way.
    """
    linker = Path(str(shutil.which("ld.gold" if option else "ld")))
    stub = folder / "libtorch_python.so"
    names = [f"-Wl,-soname,{stub.name}", "-o", str(stub), "-x", "c++", os.devnull]
    subprocess.run(["g++", "-shared", *([option] if option else []), *names], check=True)
    for name in ("libtorch.so", "libtorch_cpu.so"):
        (folder / name).symlink_to(stub)
    first = f"-L{shlex.quote(str(folder))} --no-as-needed {shlex.quote(str(stub))}"
    ours = folder / linker.name
    kernel = '*".main.so "*" -ltorch_python "*'  # others may be loaded where no torch is
    exec_linker = f'exec {shlex.quote(str(linker))} "$@"'
    ours.write_text(f'#!/bin/sh\ncase "$*" in {kernel}) set -- {first} "$@";; esac\n{exec_linker}\n')
    ours.chmod(0o755)
    os.environ["COMPILER_PATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("COMPILER_PATH")])])


def _why_no_gpu() -> str:
    import torch  # only the GPU tests need it; tests of the pages stay light

    return "" if torch.cuda.is_available() else "needs an NVIDIA GPU: torch.cuda.is_available() is false here"


def _has_browser() -> bool:
    given = os.environ.get("BROWSER_PATH")
    return any(shutil.which(name) for name in ((given,) if given else BROWSERS))
