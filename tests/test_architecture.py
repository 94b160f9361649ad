"""Imports point one way (app -> pages -> {store, runs} and runs.worker -> profiler), and heavy packages stay home."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("app", "pages", "store", "runs", "profiler")
SHARED = {f"profiler.{name}" for name in ("combo", "evidence", "machine", "record", "why_not", "workload")}
FOR_PAGES = {f"runs.{name}" for name in ("job", "job_queue", "sweep", "estimate", "command_line", "imports")}
FOR_PAGES |= {"runs.slices", "runs.trace_views"}
TORCH = ("torch", "diffusers", "xformers", "flash_attn", "torchao")


@dataclass(frozen=True)
class Import:
    path: str
    line: int
    module: str  # the imported module, resolved: `from runs import job` is runs.job
    is_local: bool  # inside a function

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


def _source_files() -> list[Path]:
    return [ROOT / "app.py", *(path for name in OURS[1:] for path in sorted((ROOT / name).rglob("*.py")))]


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _imports_of(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    local = {id(inner) for function in functions for inner in ast.walk(function)}
    relative = path.relative_to(ROOT).as_posix()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{relative}:{node.lineno} imports relatively"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name if _is_module(name) else str(node.module) for name in full]
        else:
            continue
        for module in modules:
            yield Import(relative, node.lineno, module, id(node) in local)


@cache
def _imports() -> list[Import]:
    """All of them; every xdist worker imports this file, and one needs them."""
    return [found for path in _source_files() for found in _imports_of(path)]


def _breaches(folder: str, *, allowed: set[str]) -> list[str]:
    """Imports of our own modules from a folder that are neither its own nor allowed."""
    mine = [found for found in _imports() if found.path.startswith(folder) and found.top in OURS]
    own = folder.partition("/")[0]
    return [str(found) for found in mine if found.top != own and not _allows(allowed, found.module)]


def _allows(allowed: set[str], module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def test_the_walk_sees_every_part() -> None:
    assert {found.path.partition("/")[0] for found in _imports()} == {"app.py", "pages", "store", "runs", "profiler"}


def test_profiler_imports_nothing_of_ours() -> None:
    assert _breaches("profiler/", allowed=set()) == []


def test_store_and_runs_share_words_only() -> None:
    assert _breaches("store/", allowed=SHARED) == []
    measuring = ("runs/worker.py", "runs/zygote.py")
    assert [b for b in _breaches("runs/", allowed=SHARED) if not b.startswith(measuring)] == []


def test_only_the_worker_reaches_the_measuring_parts() -> None:
    assert _breaches("runs/worker.py", allowed={"profiler"}) == []


def test_a_zygote_loads_nothing_of_ours_that_a_later_worker_should_load_anew() -> None:
    mine = [found for found in _imports() if found.path in ("runs/zygote.py", "profiler/preload.py")]
    assert {found.module for found in mine if found.top in OURS} == {"profiler.preload"}


def test_pages_use_the_store_and_the_queue() -> None:
    assert _breaches("pages/", allowed=SHARED | FOR_PAGES | {"store"}) == []
    assert _breaches("app.py", allowed={"pages"}) == []


def test_charts_import_no_data_access() -> None:
    assert _breaches("pages/charts/", allowed=SHARED) == []
    charts = [i for i in _imports() if i.path.startswith("pages/charts/")]
    assert not [str(i) for i in charts if i.module.startswith("pages.widgets")]


def test_shared_words_need_the_standard_library_only() -> None:
    files = {f"{name.replace('.', '/')}.py" for name in SHARED}
    found = [i for i in _imports() if i.path in files]
    assert {i.path for i in found} == files
    assert [str(i) for i in found if i.top not in sys.stdlib_module_names and i.module not in SHARED] == []


@pytest.mark.parametrize(
    ("packages", "homes", "never"),
    [
        (TORCH, ("profiler/",), tuple(f"{name.replace('.', '/')}.py" for name in sorted(SHARED))),
        (("streamlit",), ("app.py", "pages/"), ("pages/charts/",)),
        (("duckdb",), ("store/",), ()),
        (("plotly", "kaleido"), ("pages/charts/",), ()),
    ],
    ids=lambda value: value[0] if value else "anywhere",
)
def test_a_heavy_package_stays_home(packages: tuple[str, ...], homes: tuple[str, ...], never: tuple[str, ...]) -> None:
    users = [i for i in _imports() if i.top in packages]
    astray = [str(i) for i in users if not i.path.startswith(homes) or (never and i.path.startswith(never))]
    assert users
    assert astray == []


def test_imports_stand_at_the_top_but_for_optional_kernels() -> None:
    assert [str(i) for i in _imports() if i.is_local and not i.path.startswith("profiler/optims/")] == []


def test_a_worker_loads_no_code_generator_before_there_is_something_to_compile() -> None:
    generators = tuple(f"torch._inductor.{part}" for part in ("debug", "output_code", "virtualized"))
    assert [str(i) for i in _imports() if i.module in generators and i.path.startswith("profiler/")] == []


def test_the_app_and_its_pages_load_no_torch() -> None:
    ours = {i.module for i in _imports() if i.path.startswith(("app.py", "pages/"))}
    needed = [*sorted(ours), "runs.job", "runs.sweep"]
    modules = [path.relative_to(ROOT).with_suffix("") for path in _source_files()]
    folders = ("store", "pages/charts", "pages/widgets")
    needed += [".".join(m.parts) for m in modules if m.as_posix().startswith(folders) and m.name != "__main__"]
    program = (
        f"import importlib, sys\nfor name in {needed!r}: importlib.import_module(name)\n"
        f"print([name for name in {TORCH!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"
