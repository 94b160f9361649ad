"""Modules by qualified name as a tree, and UNet blocks in the order in which data flows through them."""

import pandas as pd

STEP = "step"  # the root of the tree: everything in the wall time
_BEFORE, _AFTER = ("conv_in", "time_proj", "time_embedding", "add_embedding"), ("conv_out",)


def module_tree(rows: pd.DataFrame) -> pd.DataFrame:
    """rows: module (a part's own name where no module did the work), kind ('module', 'other'), self_ms, num_pieces."""
    own: dict[str, tuple[float, int]] = {}
    for row in rows.itertuples(index=False):
        path = _path(str(row.module), str(row.kind))
        own[path] = (row.self_ms, row.num_pieces)
    total: dict[str, float] = {}
    for path, (self_ms, _) in own.items():
        for around in _and_around(path):
            total[around] = total.get(around, 0.0) + self_ms
    columns = {
        "path": pd.Series(list(total), dtype="str"),
        "parent": pd.Series([_parent(path) for path in total], dtype="str"),
        "label": pd.Series([_label(path) for path in total], dtype="str"),
        "module": pd.Series([_module(path) for path in total], dtype="str"),
        "self_ms": pd.Series([own.get(path, (0.0, 0))[0] for path in total], dtype="float64"),
        "total_ms": pd.Series(list(total.values()), dtype="float64"),
        "num_pieces": pd.Series([own.get(path, (0.0, 0))[1] for path in total], dtype="Int64"),
    }
    return pd.DataFrame(columns).sort_values(["total_ms", "path"], ascending=[False, True], ignore_index=True)


def _path(module: str, kind: str) -> str:
    """step|model|down_blocks|0|attentions.1 for down_blocks.0.attentions.1: below the first level an index stays with
    its list, as people say it."""
    if kind != "module":
        return f"{STEP}|{module}"
    if module == "(root)":
        return f"{STEP}|model"
    parts: list[str] = []
    for part in module.split("/" if "/" in module else "."):
        if part.isdigit() and len(parts) > 1:
            parts[-1] += f".{part}"
        else:
            parts.append(part)
    return "|".join([STEP, "model", *parts])


def _and_around(path: str) -> list[str]:
    parts = path.split("|")
    return ["|".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _parent(path: str) -> str:
    return path.rpartition("|")[0]


def _label(path: str) -> str:
    """The last name; a bare index with its list."""
    parts = path.split("|")
    return f"{parts[-2]}.{parts[-1]}" if parts[-1].isdigit() else parts[-1]


def _module(path: str) -> str:
    """The qualified name again."""
    return path.removeprefix(f"{STEP}|model|").replace("|", ".") if path.startswith(f"{STEP}|model|") else ""


def in_network_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with a column block, from the UNet's input to its output; what is no part of it comes last."""
    return rows.sort_values("block", key=lambda names: names.map(_place), kind="stable", ignore_index=True)


def _place(block: str) -> tuple[int, str]:
    if block in _BEFORE:
        return _BEFORE.index(block), ""
    sides = {"down": 10, "mid": 20, "up": 30}
    side = block.partition(".")[0]
    return (sides[side], block) if side in sides else (40 if block in _AFTER else 50, block)
