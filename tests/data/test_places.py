"""The folder of data sets."""

from pathlib import Path

from locard.data import _places


def test_the_folder_of_data_sets(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv(_places.VARIABLE, raising=False)
    assert _places.home() == Path("/home/somebody/.local/share/locard")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert _places.home() == Path("/data/locard")
    monkeypatch.setenv(_places.VARIABLE, "/named")
    assert _places.home() == Path("/named")
