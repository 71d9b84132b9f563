import pytest

from locard import errors


def test_missing_extra_says_how_to_install_it():
    with pytest.raises(
        errors.MissingExtraError, match=r"^reading x needs the package 'no_such'.*pip install 'locard\[y\]'"
    ):
        errors.need("no_such.part", extra="y", why="reading x")


def test_a_broken_package_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import a_dependency_of_it\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_dependency_of_it"):
        errors.need("broken_package", extra="y", why="x")


def test_unknown_names_come_with_near_ones():
    assert str(errors.unknown("scheme", "ahk", ["akh", "sac"])) == "unknown scheme 'ahk'; did you mean 'akh'?"
    assert str(errors.unknown("scheme", "qqqq", ["akh", "sac"])) == "unknown scheme 'qqqq'; known: akh, sac"
    assert str(errors.unknown("scheme", "x", [])) == "unknown scheme 'x'; known: none"


@pytest.mark.parametrize(
    ("value", "interval", "match"),
    [
        (0, {"above": 0, "below": 1}, r"alpha must lie in \(0, 1\); got 0"),
        (1, {"above": 0, "below": 1}, r"alpha must lie in \(0, 1\); got 1"),
        (0, {"low": 1}, r"alpha must lie in \[1, inf\); got 0"),
        (3, {"high": 2}, r"alpha must lie in \(-inf, 2\]; got 3"),
        (float("nan"), {"low": 0}, "got nan"),
        ("x", {"low": 0}, "got 'x'"),
        (True, {"low": 0}, "got True"),
        (2.5, {"low": 1, "whole": True}, "alpha must be a whole number; got 2.5"),
        (0, {"low": 1, "whole": True}, r"alpha must lie in \[1, inf\); got 0"),
        (float("nan"), {"low": 1, "whole": True}, r"alpha must lie in \[1, inf\); got nan"),
    ],
)
def test_one_sentence_for_every_number(value, interval, match):
    with pytest.raises(errors.ParameterError, match=match):
        errors.check_number("alpha", value, **interval)


def test_numbers_inside():
    errors.check_number("x", 0.5, above=0, below=1)
    errors.check_number("x", 1, low=1, high=1)
    errors.check_number("x", 1, low=1, whole=True)


def test_a_strangers_name_does_not_fill_the_screen():
    assert len(str(errors.unknown("scheme", "x" * 100_000, ["akh"]))) < 200
