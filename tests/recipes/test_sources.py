"""Names of data files with braces, and how many they may stand for."""

import time

import pytest

from tove_lvlm.config import ConfigError
from tove_lvlm.recipes.sources import data_files


def resolve(key: str, source: str, kind: str, hub: bool = False) -> str:
    return f"/{source}"


def test_braces_stand_for_many_names():
    names = ["a.json", "b-{08..11}.tar", "c-{x,y}.tar"]
    expected = ["/a.json", "/b-08.tar", "/b-09.tar", "/b-10.tar", "/b-11.tar", "/c-x.tar", "/c-y.tar"]
    assert data_files("data.train", names, resolve) == expected


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("{00000..99999999}", "100,000,000"),
        ("{0..1999}/{0..999}.tar", "2,000,000"),
        ("{0..999999}{a,b}", "2,000,000"),
        ("{-9..999999999999999999999}", "1,000,000,000,000,000,000,009"),
    ],
)
def test_more_than_anybody_has_is_a_line_and_no_hang(name, number):
    start = time.monotonic()
    with pytest.raises(ConfigError, match=rf"`data.train\[0\]`: `.*` stands for {number} files; at most 1,000,000"):
        data_files("data.train", [name], resolve)
    assert time.monotonic() - start < 1
