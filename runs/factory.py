"""Factory: whether module:factory is there to be imported, found without importing it or anything it imports."""

import ast
import importlib
import importlib.util
import sys
from difflib import get_close_matches
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path

_DYNAMIC = frozenset({"__getattr__", "globals", "locals", "vars", "setattr", "exec", "*"})  # names come from anywhere


def check_factory(name: str, directory: Path) -> None:
    """Raise ValueError when a worker in directory could not import the module, or it has nothing of that name.

    What the factory does and returns, and names that a module makes as it runs, are left to the worker.
    """
    module, _, attribute = name.partition(":")
    path = _source(name, module, directory)
    if path is None:
        return
    try:
        names = _names(ast.parse(path.read_bytes(), str(path)))
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{name} cannot be imported: {path} is no Python ({error})") from error
    if attribute not in names and not names & _DYNAMIC:
        near = get_close_matches(attribute, names, n=1)
        hint = f": did you mean {module}:{near[0]}?" if near else ""
        raise ValueError(f"{name} cannot be imported: {path} has no {attribute or 'factory without a name'}{hint}")


def _source(name: str, module: str, directory: Path) -> Path | None:
    """The module's file; None where it has no source to look at. Raises ValueError where there is no such module."""
    top, *rest = module.split(".")
    found = _top(top, directory)
    for part in rest:  # by its last name alone: a parent's would have to be imported
        inside = found.submodule_search_locations if found else None
        found = PathFinder.find_spec(part, list(inside)) if inside is not None and part else None
    if found is None:
        raise ValueError(
            f"{name} cannot be imported: there is no module {module!r} in {directory} or among the installed packages; "
            "give module:factory as in `import module`"
        )
    return Path(found.origin) if isinstance(found.loader, SourceFileLoader) and found.origin else None


def _top(name: str, directory: Path) -> ModuleSpec | None:
    """A module or package of no other, as a worker finds it: in its directory, else where this process would."""
    importlib.invalidate_caches()
    found = PathFinder.find_spec(name, [str(directory), *sys.path]) if name else None
    if found is not None or not name:
        return found
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # loaded, and says not from where
        return ModuleSpec(name, None)


def _names(tree: ast.Module) -> set[str]:
    """Every name that the module binds anywhere, and those of _DYNAMIC that it uses: one too many accuses nobody."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Name) and (isinstance(node.ctx, ast.Store) or node.id in _DYNAMIC):
            found.add(node.id)
        elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
            found.add(node.name)
    return found
