"""A factory that is there is found without importing it, and one that is not is told at once."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

import pytest

from runs.factory import check_factory

MODULE = """
import torch
from elsewhere import borrowed as lent
if torch.cuda.is_available():
    def make_unet(): ...
else:
    make_other = make_unet = None
raise SystemExit("imported")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_unets.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "package" / "inner").mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    (tmp_path / "package" / "inner" / "unets.py").write_text("class Mine: ...", encoding="utf-8")
    (tmp_path / "lazy.py").write_text("def __getattr__(name): ...", encoding="utf-8")
    (tmp_path / "itself.py").write_text("import sys\nsys.modules[__name__] = object()", encoding="utf-8")
    (tmp_path / "told.py").write_text("__all__ = ['hidden']\nmodules = 1", encoding="utf-8")
    (tmp_path / "space" / "deep").mkdir(parents=True)
    (tmp_path / "space" / "deep" / "unets.py").write_text("def make_unet(): ...", encoding="utf-8")
    (tmp_path / "starred.py").write_text("from my_unets import *", encoding="utf-8")
    (tmp_path / "broken.py").write_text("def make_unet(:", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        *("my_unets:make_unet", "my_unets:make_other", "my_unets:lent", "package.inner.unets:Mine"),
        *("lazy:anything", "starred:make_unet", "itself:anything", "told:hidden"),
        *("space.deep.unets:make_unet", "space:anything"),
        *("package.made_at_import:make_unet", "package.inner.unets.Mine:any", "os.path:join"),
        *("diffusers:UNet2DConditionModel", "diffusers.models.unets.unet_2d:UNet2DModel"),
        *("tests.support.unets:conditional_unet", "time:time", "os:getcwd", "json.decoder:JSONDecoder"),
    ],
)
def test_what_may_be_there_is_left_to_the_worker(name: str, folder: Path) -> None:
    loaded = set(sys.modules)
    check_factory(name, folder)
    assert not {"my_unets", "package", "lazy", "starred"} & (set(sys.modules) - loaded)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere:make_unet", "there is no module 'nowhere' in "),
        ("space.deep.unets:make_unte", r"unets\.py has no 'make_unte': did you mean space.deep.unets:make_unet\?"),
        ("package.inner.unets:Min", r"has no 'Min': did you mean package.inner.unets:Mine\?"),
        ("told:make_unet", "has no 'make_unet'$"),
        ("my_unets:make_unte", r"my_unets\.py has no 'make_unte': did you mean my_unets:make_unet\?"),
        ("my_unets:", "has no ''"),
        (":make_unet", "there is no module ''"),
        ("my-unets:make_unet", "there is no module 'my-unets'"),
        (".my_unets:make_unet", "there is no module ''"),
        ("broken:make_unet", r"broken\.py is no Python \(invalid syntax"),
    ],
)
def test_what_cannot_be_there_is_told(name: str, says: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=says):
        check_factory(name, folder)


def test_a_package_is_found_where_its_installer_says(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An editable install may put a finder before Python's own; a folder of the same name here is none of it."""
    source = tmp_path_factory.mktemp("checkout") / "installed.py"
    source.write_text("def make_unet(): ...", encoding="utf-8")
    (folder / "installed.py").write_text("", encoding="utf-8")

    class Editable:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
            return spec_from_file_location(name, source) if name == "installed" else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "meta_path", [Editable, *sys.meta_path])
        check_factory("installed:make_unet", folder)
        with pytest.raises(ValueError, match="checkout"):
            check_factory("installed:make_unte", folder)


def test_a_module_may_extend_over_two_folders_of_the_path(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    (other / "space").mkdir()
    (other / "space" / "more.py").write_text("def make_unet(): ...", encoding="utf-8")
    monkeypatch.syspath_prepend(other)
    check_factory("space.more:make_unet", folder)
    with pytest.raises(ValueError, match=r"more\.py has no 'make_unte'"):
        check_factory("space.more:make_unte", folder)
