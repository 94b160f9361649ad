"""The process that opens traces: python -m profiler.traces import|slice|views, under limits that it sets itself.

Whatever the file does to it (memory, depth, endless text), this process ends with one line and an exit code; whoever
started it watches the clock. Nothing here unpickles or runs what it reads.
"""

import argparse
import json
import os
import resource
import sys
from pathlib import Path

import pyarrow as pa

from profiler.traces.attribute import attribute
from profiler.traces.imported import import_trace
from profiler.traces.read import read_trace
from profiler.traces.slice import write_slice
from profiler.traces.views import write_views

REFUSED = 2  # exit code: the file or the request is at fault, and stdout says why
NICENESS = 10  # a measurement may be under way on this machine


def main() -> int:
    arguments = _parser().parse_args()
    _limit(arguments.memory_bytes)
    try:
        print(json.dumps(_do(arguments)))
    except (MemoryError, pa.ArrowMemoryError):
        limit = f"{arguments.memory_bytes / 2**30:.1f} GiB"
        return _refused(f"{arguments.name} needs more than {limit} of memory: profile fewer steps, or raise the limit")
    except RecursionError:
        return _refused(f"{arguments.name} is no kineto trace: its values are nested without end")
    except ValueError as error:
        return _refused(str(error))
    except OSError as error:
        return _refused(f"{arguments.name} cannot be read, or its run written: {error.strerror or error}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m profiler.traces", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    bring, cut, show = (commands.add_parser(name) for name in ("import", "slice", "views"))
    for command in (bring, cut, show):
        command.add_argument("source", type=Path)
        command.add_argument("target", type=Path)
        command.add_argument("--name", required=True, help="what to call the file")
        command.add_argument("--max-bytes", type=int, required=True)
        command.add_argument("--memory-bytes", type=int, required=True)
    bring.add_argument("--run-id", required=True)
    cut.add_argument("--step", type=int, required=True)
    cut.add_argument("--module")
    return parser


def _do(arguments: argparse.Namespace) -> dict[str, object]:
    source, target, limit = arguments.source, arguments.target, arguments.max_bytes
    if arguments.command == "import":
        record = import_trace(source, target, run_id=arguments.run_id, name=arguments.name, max_bytes=limit)
        return {"run_id": record.run_id, "notes": record.notes}
    if arguments.command == "views":
        found = attribute(read_trace(source, max_bytes=limit))
        write_views(found, target)
        return {"num_steps": found.num_steps}
    num_events = write_slice(source, target, step=arguments.step, module=arguments.module, max_bytes=limit)
    return {"num_events": num_events}


def _limit(memory_bytes: int) -> None:
    """Memory beyond what the libraries have mapped by now; no core dumps of other people's data."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)


def _refused(line: str) -> int:
    print(" ".join(line.split()))
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
