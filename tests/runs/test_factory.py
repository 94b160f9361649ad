"""A factory that is there is found without importing it, and one that is not is told at once."""

import sys
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
    (tmp_path / "starred.py").write_text("from my_unets import *", encoding="utf-8")
    (tmp_path / "broken.py").write_text("def make_unet(:", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        *("my_unets:make_unet", "my_unets:make_other", "my_unets:lent", "package.inner.unets:Mine"),
        *("lazy:anything", "starred:make_unet"),
        *("tests.support.unets:conditional_unet", "time:time", "os:getcwd", "json.decoder:JSONDecoder"),
        "__main__:whatever",
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
        ("package.iner.unets:Mine", "there is no module 'package.iner.unets'"),
        ("package.inner.unets.more:Mine", "there is no module"),
        ("my_unets:make_unte", r"my_unets\.py has no make_unte: did you mean my_unets:make_unet\?"),
        ("my_unets:", "has no factory without a name"),
        (":make_unet", "there is no module ''"),
        ("my-unets:make_unet", "there is no module 'my-unets'"),
        (".my_unets:make_unet", "there is no module '.my_unets'"),
        ("broken:make_unet", r"broken\.py is no Python \(invalid syntax"),
    ],
)
def test_what_cannot_be_there_is_told(name: str, says: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=says):
        check_factory(name, folder)
