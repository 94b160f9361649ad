"""Colours: each has one meaning, the same on every page, on light and on dark.

The hues are Okabe and Ito's and Paul Tol's, which stay apart for colour-blind readers; what a colour
says is always written beside it too.
"""

# Stacked in this order everywhere: the arithmetic first, what only moves data after it.
CATEGORIES: dict[str, str] = {
    "attention": "#D55E00",
    "conv": "#1B7FC0",
    "gemm": "#56B4E9",
    "norm": "#009E73",
    "elementwise": "#E69F00",
    "reduction": "#CC79A7",
    "layout": "#8F8A1F",
    "memcpy": "#7A6FC4",
    "optimizer": "#A8557A",
    "communication": "#44AA99",
    "other": "#9AA1AB",
}

# Time in which the device did nothing, by reason; drawn hatched, since it is no work.
IDLE: dict[str, str] = {
    "idle: host": "#6B7280",
    "idle: queue": "#9AA1AB",
    "idle: sync": "#B5403A",
    "idle: allocator": "#CC79A7",
    "idle: data": "#8F8A1F",
    "idle: outside of operators": "#6B7280",
}
PARTS: dict[str, str] = CATEGORIES | IDLE

# Segments of the critical path that are no kernel.
WAITS: dict[str, str] = {"host": "#6B7280", "launch": "#9AA1AB", "gap": "#C3C8CF", "sync": "#B5403A"}

MEMORY: dict[str, str] = {
    "parameters": "#1B7FC0",
    "gradients": "#009E73",
    "optimizer_state": "#A8557A",
    "activations": "#E69F00",
    "workspace": "#56B4E9",
    "other": "#9AA1AB",
}

PEAK: dict[str, str] = MEMORY | {"temporary": "#D55E00", "untraced": "#CBD1D8"}

STATUSES: dict[str, str] = {
    "done": "#1B7FC0",
    "imported": "#56B4E9",
    "ineffective": "#E69F00",
    "wrong": "#CC79A7",
    "oom": "#D55E00",
    "failed": "#B5403A",
    "timeout": "#8F8A1F",
    "rejected": "#8A929E",
    "cancelled": "#9AA1AB",
}

VERDICTS: dict[str, str] = {
    "faster": "#1B7FC0",
    "same": "#8A929E",
    "slower": "#D55E00",
    "unknown": "#9AA1AB",
}

BETTER, WORSE, EVEN = "#1B7FC0", "#D55E00", "#8A929E"
BASELINE = "#6B7280"

# Lines that share one chart, in the order in which they are drawn.
SERIES: tuple[str, ...] = ("#1B7FC0", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A6FC4", "#8F8A1F")


def category(name: str) -> str:
    """The colour of a kernel category; a category that this version does not know is drawn as other."""
    return CATEGORIES.get(name, CATEGORIES["other"])


def part(name: str) -> str:
    """The colour of a part of a step: a kernel category, or idle with its reason."""
    return PARTS.get(name, CATEGORIES["other"])


def status(name: str) -> str:
    """The colour of a run's status."""
    return STATUSES.get(name, STATUSES["cancelled"])


def ink(colour: str, dark: bool) -> str:
    """The colour for text: lightened on a dark page, where small letters need more contrast."""
    if not dark:
        return colour
    parts = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(part + (255 - part) * 0.35):02x}" for part in parts)


def faded(colour: str, opacity: float) -> str:
    """The colour as rgba() with this opacity."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
