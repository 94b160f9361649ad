"""Provenance: which modules Inductor made each kernel for, noted while it generates code.

Inductor announces every kernel and every library call that it emits, in the order of the generated code and with the
IR nodes behind it, to `set_kernel_post_grad_provenance_tracing` (torch 2.11 to 2.13). We listen and pass the call on.
Inductor's own record (`trace.provenance_tracking_level`) stays off: it forgets backwards, writes into the generated
text and changes the caches' keys. An FX node behind an IR node knows the modules that Dynamo was in when it traced the
operator (`nn_module_stack`), one of a backward those of its forward operator (`fwd_nn_module_stack`).
These parts of Inductor are loaded where something compiles: of an eager worker's start they would take a tenth.

What was learned goes into the trace's file, by the name under which the trace shows each compiled graph;
profiler/traces/compiled.py reads it there.
"""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, wraps
from importlib import import_module
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import nn

from profiler.traces.alignment import call_name

_ANNOUNCE = "set_kernel_post_grad_provenance_tracing"
_SOURCE = re.compile(r"^L\['\w+'\]")  # Dynamo's word for a local of the compiled function: L['self']
_STEP = re.compile(r"\['([^']+)'\]|\[(\d+)\]|\.(\w+)")
_NO_NAMES = ("__dict__", "_modules", "_orig_mod")
_WRAPPER = "module."  # DistributedDataParallel's

Origin = tuple[str, int | None]  # a module as Dynamo spells it; of a backward node the number of its forward one
Calls = list[tuple[str, tuple[Origin, ...]]]  # each call's name, and where its nodes come from


@dataclass
class _Noted:
    under_way: WeakKeyDictionary[Any, Calls] = field(default_factory=WeakKeyDictionary)  # by graph being generated
    graphs: list[tuple[ReferenceType[Any], Calls]] = field(default_factory=list)
    forwards: dict[int, str] = field(default_factory=dict)  # autograd's number -> module
    failure: str = ""


_NOTED = _Noted()


def listen() -> None:
    """Note what this process compiles from now on; what was noted before is forgotten."""
    _NOTED.under_way.clear()
    _NOTED.graphs.clear()
    _NOTED.forwards.clear()
    has_words = hasattr(_inductor("debug"), _ANNOUNCE)
    _NOTED.failure = "" if has_words else f"torch {torch.__version__} announces no kernels"
    if not _NOTED.failure:
        _install()


def note() -> list[str]:
    """What the reader of the run must know where something could not be noted."""
    return [f"not every compiled kernel's module could be noted: {_NOTED.failure}"] if _NOTED.failure else []


def learned(unet: nn.Module) -> dict[str, Any]:
    """What the trace's file keeps; empty where nothing was compiled. To be asked before the trace begins.

    `modules` are qualified names, `graphs` the compiled ones: their calls as [name, numbers of modules]. The names are
    the UNet's where a graph is_whole, else they count from the module whose call was compiled, itself the empty name.
    """
    known = {name for name, _ in unet.named_modules()}
    is_by_block = any(getattr(part, "_compiled_call_impl", None) is not None for part in unet.modules())
    numbers: dict[str, int] = {}
    graphs: dict[str, Any] = {}
    for index, (made, calls) in enumerate(_NOTED.graphs):
        graph = made()
        if graph is None:
            continue
        if not graph._fx_graph_cache_key:  # what Inductor's cache does not take has no name for the trace to show
            graph._fx_graph_cache_key = f"uncached{index}"
        named = [(name, _paths(origins, known)) for name, origins in calls]
        used = {path for _, paths in named for path in paths}
        if used:
            graphs[graph._fx_graph_cache_key] = {
                "is_whole": not is_by_block and used != {""} and used <= known,
                "calls": [[name, [numbers.setdefault(path, len(numbers)) for path in paths]] for name, paths in named],
            }
    return {"modules": list(numbers), "graphs": graphs} if graphs else {}


def _paths(origins: tuple[Origin, ...], known: set[str]) -> list[str]:
    paths = (path if number is None else _NOTED.forwards.get(number, path) for path, number in origins)
    return list(dict.fromkeys(_qualified(path, known) for path in paths))


def _qualified(path: str, known: set[str]) -> str:
    """L['self'].__dict__['_modules']['up_blocks'].0.resnets.1 is up_blocks.0.resnets.1."""
    steps = [next(filter(None, found)) for found in _STEP.findall(_SOURCE.sub("", path))]
    name = ".".join(step for step in steps if step not in _NO_NAMES)
    inner = name.removeprefix(_WRAPPER)
    return inner if inner in known else name


def _inductor(part: str) -> Any:
    return import_module(f"torch._inductor.{part}")


@cache
def _install() -> None:
    """Once in a process: Inductor's modules hold the function by name, or take it from `debug` when they are loaded."""
    announce: Callable[..., Any] = getattr(_inductor("debug"), _ANNOUNCE)
    compiled = _inductor("output_code").CompiledFxGraph
    make = compiled.__init__

    @wraps(announce)
    def announced(node_schedule: Any, kernel_name: str, *args: Any, **kwargs: Any) -> Any:
        _noting(_note_call, node_schedule, kernel_name)
        return announce(node_schedule, kernel_name, *args, **kwargs)

    @wraps(make)
    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        _noting(_note_graph, self, args)

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("torch._inductor") and vars(module).get(_ANNOUNCE) is announce:
            setattr(module, _ANNOUNCE, announced)
    compiled.__init__ = made


def _noting(keep: Callable[[Any, Any], None], first: Any, second: Any) -> None:
    """A measured compilation must not fail for our book-keeping: what went wrong is told in the run's notes."""
    try:
        keep(first, second)
    except Exception as error:
        _NOTED.failure = _NOTED.failure or f"{type(error).__name__}: {error}"


def _note_call(schedule: Any, kernel: str) -> None:
    graph = _inductor("virtualized").V.graph
    while parent := getattr(graph, "parent", None):  # a subgraph's code is part of its parent's
        graph = parent
    origins = (_origin(node) for node in _nodes(schedule))
    call = (call_name(kernel), tuple(dict.fromkeys(origin for origin in origins if origin)))
    _NOTED.under_way.setdefault(graph, []).append(call)


def _note_graph(made: Any, args: tuple[Any, ...]) -> None:
    """Its code is whole. Of a number, the last operator is the one that autograd gave it: those that make no node share
    the next one's.
    """
    _, graph, gm, *_ = args
    if calls := _NOTED.under_way.pop(graph, None):
        _NOTED.graphs.append((ref(made), calls))
    for node in gm.graph.nodes:
        origin = _origin(node)
        if origin and origin[1] is None and "seq_nr" in node.meta:
            _NOTED.forwards[node.meta["seq_nr"]] = origin[0]


def _nodes(schedule: Any) -> Iterator[Any]:
    """The FX nodes behind a library call (one IR node), or behind a kernel (scheduler nodes, and markers of loops).

    A call of several outputs has no origin_node, and its origins hold what was fused into its inputs, too: of several
    nodes of its own operator (a 1x1 convolution before it that became a matmul) it is the last.
    """
    if not isinstance(schedule, list | tuple):
        operator = getattr(schedule, "op_overload", None)
        exact = [node for node in schedule.origins if node.target is operator]
        own = schedule.origin_node or max(exact, default=None)
        yield from [own] if own else schedule.origins
        return
    for fused in schedule:
        for one in fused.get_nodes() if hasattr(fused, "get_nodes") else ():
            if one.node is not None:
                yield from one.node.origins


def _origin(node: Any) -> Origin | None:
    """The innermost module that the node's operator was called in; empty for the one that was compiled.

    Of a backward node torch tells the first operator's module with its number, where the last's is right. None where no
    operator of the model stands behind a node, as behind sums of gradients.
    """
    meta = node.meta
    if meta.get("source_fn_stack") or meta.get("nn_module_stack"):
        return _innermost(meta.get("nn_module_stack")), None
    if meta.get("fwd_source_fn_stack") or meta.get("fwd_nn_module_stack"):
        return _innermost(meta.get("fwd_nn_module_stack")), meta.get("seq_nr")
    return None


def _innermost(stack: dict[str, tuple[str, Any]] | None) -> str:
    return list(stack.values())[-1][0] if stack else ""
