"""Factory: a typo in module:factory, told before a worker starts, without importing anything."""

import ast
import importlib
import sys
from difflib import get_close_matches
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path

# A file that uses one of these may have any name.
_DYNAMIC = frozenset({"__getattr__", "__dict__", "globals", "locals", "vars", "setattr", "exec", "eval", "*"})
_NAMED = (ast.FunctionDef, ast.ClassDef)


def check_factory(name: str, directory: Path) -> None:
    """Raise ValueError when a worker started here and at work in directory cannot find the module, or its file says
    nothing of the factory.

    Left to the worker: what the factory does and returns, modules inside a package that is there (it may make some as
    it is imported), and names that a file may make as it runs. What another module sets on it is not seen.
    """
    module, _, attribute = name.partition(":")
    top, *rest = module.split(".")
    found = _find(top, directory) if top and all(rest) else None
    if found is None:
        raise ValueError(
            f"{name} cannot be imported: there is no module {top!r} in {directory} or among the installed packages; "
            "give module:factory as in `import module`"
        )
    for part in rest:
        found = PathFinder.find_spec(part, (found and found.submodule_search_locations) or [])
    if found is None or not isinstance(found.loader, SourceFileLoader):
        return
    path = Path(found.loader.path)
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{name} cannot be imported: {path} is no Python ({error})") from error
    words = _words(tree)
    if attribute not in words and not words & _DYNAMIC and not words >= {"sys", "modules"}:
        near = get_close_matches(attribute, [node.name for node in ast.walk(tree) if isinstance(node, _NAMED)], n=1)
        hint = f": did you mean {module}:{near[0]}?" if near else ""
        raise ValueError(f"{name} cannot be imported: {path} has no {attribute!r}{hint}")


def _find(name: str, directory: Path) -> ModuleSpec | None:
    """A module or package of no other, as import does: of the paths the worker's directory is the first."""
    importlib.invalidate_caches()
    for finder in sys.meta_path:
        path = [str(directory), *sys.path] if finder is PathFinder else None
        if found := finder.find_spec(name, path):
            return found
    return None


def _words(tree: ast.Module) -> set[str]:
    """Every name and string in the file, whatever it is: one too many accuses nobody."""
    strings = (value for node in ast.walk(tree) for _, value in ast.iter_fields(node) if isinstance(value, str))
    return {word for string in strings for word in string.split(".")}
