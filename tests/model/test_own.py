"""Functions known by import path."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daskglm.errors import DesignError
from daskglm.model.own import imported, known, path_of

HERE = __name__


def tripled(x: Any) -> Any:
    return 3 * x


class Shelf:
    @staticmethod
    def doubled(x: Any) -> Any:
        return 2 * x


unnamed = lambda x: x  # noqa: E731


def local() -> Any:
    def inner(x: Any) -> Any:
        return x

    return inner


def renamed(x: Any) -> Any:
    return x


renamed.__qualname__ = "tripled"


def of_main(x: Any) -> Any:
    return x


of_main.__module__ = "__main__"


@pytest.mark.parametrize(
    "function, path",
    [
        (tripled, f"{HERE}:tripled"),
        (Shelf.doubled, f"{HERE}:Shelf.doubled"),
        # found where it is defined, not where it was imported from
        (json.loads, "json:loads"),
        (json.JSONDecoder.decode, "json.decoder:JSONDecoder.decode"),
    ],
)
def test_a_path_leads_back_to_the_function(function: Any, path: str) -> None:
    assert path_of(function) == path
    assert known(path) is imported(path) is function


@pytest.mark.parametrize("function", [unnamed, local(), renamed, of_main, partial(tripled), Shelf().__init__])
def test_what_cannot_be_imported_has_no_path(function: Any) -> None:
    assert path_of(function) is None


def test_a_ufunc_has_a_path_where_numpy_tells_it() -> None:
    path = path_of(np.exp)
    assert path is None or known(path) is np.exp


def test_a_module_is_imported_for_workers_and_never_for_a_file(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "my_own_links.py").write_text("def g(mu):\n    return mu + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DesignError) as refused:
        known("my_own_links:g")
    assert str(refused.value) == "the model uses my_own_links:g: import my_own_links before loading it"
    assert "my_own_links" not in sys.modules
    try:
        assert imported("my_own_links:g")(1) == 2
        assert known("my_own_links:g") is imported("my_own_links:g")
    finally:
        del sys.modules["my_own_links"]


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(
        DesignError, match=r"no_such_links:g cannot be imported here .*no_such_links where every worker"
    ):
        imported("no_such_links:g")


@pytest.mark.parametrize("of", [known, imported])
@pytest.mark.parametrize(
    "name, sentence",
    [
        ("gone", "has no gone"),
        ("Shelf.gone", "has no Shelf.gone"),
        # something else's function
        ("json.loads", "not a function defined in"),
        ("HERE", "not a function defined in"),
    ],
)
def test_a_path_that_leads_nowhere(of: Any, name: str, sentence: str) -> None:
    with pytest.raises(DesignError, match=sentence):
        of(f"{HERE}:{name}")
