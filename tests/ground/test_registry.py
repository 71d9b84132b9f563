import importlib
import importlib.metadata
import sys

import pytest

from locard import registry
from locard.errors import ParameterError
from locard.registry import Registry


@pytest.fixture
def room(tmp_path, monkeypatch):
    package = tmp_path / "a_room"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from locard.registry import Registry\nthings = Registry('thing', 'a_room', 'a.g')\n"
    )
    (package / "one.py").write_text("from a_room import things\n@things.register('one')\nclass One: ...\n")
    (package / "_private.py").write_text("raise RuntimeError('never imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("a_room")]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module("a_room").things


def entry(name, value):
    return importlib.metadata.EntryPoint(name=name, value=value, group="a.g")


def test_a_file_in_the_room_is_enough(room, monkeypatch):
    monkeypatch.setenv("LOCARD_PLUGINS", "none")
    assert room.names() == ["one"]
    assert room.get("one").__name__ == "One"
    assert "one" in room
    assert "two" not in room


def test_an_unknown_name(room):
    with pytest.raises(ParameterError, match="unknown thing 'onee'; did you mean 'one'"):
        room.get("onee")


def test_a_name_taken_twice(room):
    room.names()
    with pytest.raises(ParameterError, match=r"thing name 'one' is taken twice: by a_room\.one and by "):

        @room.register("one")
        class Other: ...


def test_other_packages_come_in_by_entry_points(room, monkeypatch):
    monkeypatch.delenv("LOCARD_PLUGINS", raising=False)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry("two", "fractions:Fraction")])
    assert room.names() == ["one", "two"]
    assert room.get("two").__name__ == "Fraction"


def test_a_broken_plugin_is_a_warning_that_names_it(room, monkeypatch):
    monkeypatch.delenv("LOCARD_PLUGINS", raising=False)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry("bad", "no_such_package:X")])
    with pytest.warns(UserWarning, match=r"the thing 'bad' of no_such_package:X cannot be used"):
        assert room.names() == ["one"]


def test_plugins_can_be_left_out(room, monkeypatch):
    monkeypatch.setenv("LOCARD_PLUGINS", "none")
    monkeypatch.setattr(registry, "entry_points", lambda group: pytest.fail("asked"))
    assert room.names() == ["one"]


def test_a_registry_without_plugins():
    assert isinstance(Registry("thing", "locard.evidence").names(), list)
