"""The command line as a user meets it: what it prints, where, and with which exit code."""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from locard.cli import run, spread
from locard.errors import ParameterError
from locard.fingerprint import Fingerprint
from locard.testing import toy_data


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set and scikit-learn models in files, as a user without torch has them."""
    import skops.io
    from sklearn.linear_model import LogisticRegression

    folder = tmp_path_factory.mktemp("made")
    data = toy_data(700)
    np.savez(folder / "queries.npz", x=data.inputs[:400], y=data.labels[:400])
    flat = data.inputs[400:].reshape(300, -1)
    order = np.random.default_rng(0)
    for i in range(24):
        rows = order.choice(300, 120, replace=False)
        # A class that none of the rows has would be missing from the estimator's classes.
        rows[:5] = [np.flatnonzero(data.labels[400:] == label)[0] for label in range(5)]
        model = LogisticRegression(max_iter=200).fit(flat[rows], data.labels[400:][rows])
        skops.io.dump(model, folder / (f"ref-{i:02}.skops" if i else "victim.skops"))
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of it as working directory."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


EXTRACT = ["extract", "victim.skops", "--scheme"]


def locard(*words):
    return run([str(word) for word in words])


def test_from_a_model_to_a_verdict(folder, capsys):
    assert (
        locard(
            "extract", "victim.skops", "--scheme", "akh", "--data", "queries.npz", "--queries", 50, "-o", "fp.locard"
        )
        == 0
    )
    assert "akh, 50 queries, content " in capsys.readouterr().out
    references = sorted(path.name for path in folder.glob("ref-*.skops"))
    assert locard("calibrate", "fp.locard", "--references", *references[:20], "--derived", "copy=victim.skops") == 0
    assert "20 references (unstated 20), smallest p 0.0476" in capsys.readouterr().out

    assert locard("verify", "fp.locard", "victim.skops", "--json", "--html", "page.html", "--fail-if", "derived") == 3
    found = json.loads(capsys.readouterr().out)
    assert found["decision"] == "derived"
    assert found["p_value"] == pytest.approx(1 / 21)
    assert found["null"]["n"] == 20
    assert found["queries"] == {"asked": 50, "from_journal": 0}
    assert found["power"][0]["kind"] == "copy"
    assert found["access"] == {"needed": "LABELS", "used": "LABELS"}
    assert found["fingerprint"] == Fingerprint.load("fp.locard").content
    page = (folder / "page.html").read_text()
    assert "locard verify fp.locard victim.skops" in page

    assert locard("verify", "fp.locard", references[21], "--fail-if", "derived") == 0
    assert "no evidence" in capsys.readouterr().out.lower()


def test_calibrate_writes_elsewhere_and_leaves_the_first_file(folder, capsys):
    locard("extract", "victim.skops", "--scheme", "akh", "--data", "queries.npz", "-o", "fp.locard")
    before = (folder / "fp.locard").read_bytes()
    assert (
        locard(
            "calibrate",
            "fp.locard",
            "--references",
            "same-data=ref-01.skops",
            "disjoint=ref-02.skops",
            "-o",
            "c.locard",
        )
        == 0
    )
    assert "(disjoint 1, same-data 1)" in capsys.readouterr().out
    assert (folder / "fp.locard").read_bytes() == before
    assert Fingerprint.load("c.locard").content == Fingerprint.load("fp.locard").content


def test_compare(folder, capsys):
    references = sorted(path.name for path in folder.glob("ref-*.skops"))[:20]
    words = [
        "compare",
        "victim.skops",
        "victim.skops",
        "--data",
        "queries.npz",
        "--queries",
        50,
        "--references",
        *references,
    ]
    assert locard(*words, "--schemes", "akh,random+labels+hamming", "--json", "--html", "page.html") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["decision"] == "derived"
    assert found["p_value"] == pytest.approx(1 / 21)
    assert [row["scheme"] for row in found["evidence"]] == ["akh", "random+labels+hamming"]


def test_schemes_and_inspect(folder, capsys):
    assert locard("schemes", "--json") == 0
    rows = {row["scheme"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["akh"]["suspect_access"] == "LABELS"
    assert locard("schemes") == 0
    assert "akh" in capsys.readouterr().out
    locard("extract", "victim.skops", "--scheme", "akh", "--data", "queries.npz", "-o", "fp.locard")
    capsys.readouterr()
    for path, kind in [
        ("fp.locard", "fingerprint"),
        ("victim.skops", "model"),
        ("queries.npz", "data"),
        ("digits:test", "data"),
    ]:
        assert locard("inspect", path, "--json") == 0
        assert json.loads(capsys.readouterr().out)["kind"] == kind
        assert locard("inspect", path) == 0
        assert kind in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "none.locard", "victim.skops"], "the fingerprint 'none.locard' cannot be read: No such file"),
        (["verify", "queries.npz", "victim.skops"], "truncated or no fingerprint"),
        (["verify", "fp.locard", "none.onnx"], "none.onnx"),
        (["verify", "fp.locard", "victim.skops", "--alpha", "1.5"], "alpha must lie in (0, 1); got 1.5"),
        (["verify", "fp.locard", "victim.skops", "--alpha", "x"], "Invalid value for '--alpha'"),
        (["verify", "fp.locard", "victim.skops", "--budget", "10"], "the budget of 10 queries"),
        (["verify", "fp.locard", "victim.skops", "--access", "root"], "unknown access 'root'"),
        (["verify", "fp.locard", "victim.skops", "--fail-if", "guilty"], "--fail-if takes one of derived"),
        (["verify", "fp.locard"], "Missing argument 'SUSPECT'"),
        (["verify", "fp.locard", "victim.skops", "--html", "no/such/page.html"], "cannot write 'no/such/page.html'"),
        ([*EXTRACT, "ahk", "--data", "queries.npz", "-o", "x.locard"], "did you mean 'akh'"),
        ([*EXTRACT, "akh", "--data", "none.npz", "-o", "x.locard"], "No such file"),
        ([*EXTRACT, "akh", "--data", "digits", "-o", "x"], "ends in .locard; got 'x'"),
        ([*EXTRACT, "akh", "--data", "queries.npz", "--param", "a", "-o", "x.locard"], "NAME=VALUE"),
        ([*EXTRACT, "akh", "--data", "queries.npz", "--param", "a=1", "-o", "x.locard"], "'a'"),
        ([*EXTRACT, "akh", "--data", "queries.npz", "--population", "none", "-o", "x.locard"], "none"),
        ([*EXTRACT, "ipguard", "--data", "queries.npz", "-o", "x.locard"], "needs GRADIENTS"),
        (["calibrate", "fp.locard"], "--references is missing"),
        (["calibrate", "fp.locard", "--references", "victim.skops"], "is the victim itself"),
        (["calibrate", "fp.locard", "--references", "a=ref-01.skops", "ref-02.skops"], "to all models (STRATUM=PATH)"),
        (["calibrate", "fp.locard", "--references", "a=", "b=ref-01.skops"], "expected STRATUM=PATH; got 'a='"),
        (["calibrate", "fp.locard", "--references", "=ref-01.skops"], "expected STRATUM=PATH; got '=ref-01.skops'"),
        (["calibrate", "fp.locard", "--references", ""], "word 4 of the command is empty"),
        (["calibrate", "fp.locard", "--references", "-o", "x.locard"], "--references takes one value or several"),
        (["calibrate", "fp.locard", "--references", "ref-01.skops", "-o", "x"], "ends in .locard; got 'x'"),
        (["verify", "fp.locard", "victim.skops", "--html", "."], "cannot write '.': it is there, and no file"),
        (["verify", "fp.locard", "victim.skops", "--html", "/dev/null"], "'/dev/null': it is there, and no file"),
        (["verify", "fp.locard", "victim.skops", "--html", "fp.locard/x"], "cannot write 'fp.locard/x': Not a direc"),
        (["verify", "fp.locard", "victim.skops", "--html", "x" * 300], "File name too long"),
        (["verify", "fp.locard", "x" * 300], "cannot go on: File name too long 'xxx"),
        (["compare", "victim.skops", "ref-01.skops", "--data", "queries.npz", "--schemes", ","], "each once; got ','"),
        (["compare", "victim.skops", "ref-01.skops", "--data", "queries.npz", "--schemes", "akh,akh"], "each once"),
        (["demo", "--out", "fp.locard"], "cannot go on: File exists 'fp.locard'"),
        (["inspect", "nothing-here"], "no model at 'nothing-here'"),
        (["frobnicate"], "No such command 'frobnicate'"),
    ],
)  # fmt: skip
def test_what_is_wrong_outside_is_one_line_and_exit_code_2(folder, capsys, words, message):
    locard("extract", "victim.skops", "--scheme", "akh", "--data", "queries.npz", "-o", "fp.locard")
    capsys.readouterr()
    assert locard(*words) == 2
    out, err = capsys.readouterr()
    assert err.startswith("locard: ")
    assert err.count("\n") == 1
    assert message in err
    assert out == ""


def test_several_values_after_one_flag():
    assert spread(["x", "--references", "a", "b", "-o", "f"]) == [
        "x",
        "--references",
        "a",
        "--references",
        "b",
        "-o",
        "f",
    ]
    assert spread(["x", "--param", "a=1", "--trust", "b"]) == ["x", "--param", "a=1", "--trust", "b"]
    assert spread(["x", "--", "--references", "a"]) == ["x", "--", "--references", "a"]
    for words in (["x", "--references"], ["x", "--references", "-o", "f"]):
        with pytest.raises(ParameterError, match="--references takes one value or several; none is given"):
            spread(words)


def test_a_report_is_written_through_a_link(folder, capsys):
    locard("extract", "victim.skops", "--scheme", "akh", "--data", "queries.npz", "-o", "fp.locard")
    (folder / "link.html").symlink_to("page.html")
    assert locard("verify", "fp.locard", "victim.skops", "--html", "link.html") == 0
    assert (folder / "link.html").is_symlink()
    assert "<html" in (folder / "page.html").read_text()
    assert not list(folder.glob(".*.part"))


def test_no_control_code_reaches_the_terminal(folder, capsys):
    locard("extract", "victim.skops", "--scheme", "akh", "--data", "queries.npz", "-o", "fp.locard")
    replace(Fingerprint.load("fp.locard"), data_name="x\x1b[2J\u202e").save("odd.locard")
    capsys.readouterr()
    assert locard("inspect", "odd.locard") == 0
    assert "x\\x1b[2J\\u202e" in capsys.readouterr().out
    assert locard("verify", "fp.locard", "http://none\x1b[2J/") == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shell", "code", "error"),
    [
        ("exec {locard} inspect queries.npz >/dev/full", 2, "locard: cannot go on: No space left on device\n"),
        ("{locard} inspect queries.npz | true; exit ${{PIPESTATUS[0]}}", 0, ""),
        ("exec {locard} verify fp.locard victim.skops --json 2>&- >/dev/null", 0, ""),
        ("mv queries.npz $'\\xff.npz'; PYTHONUTF8=1 exec {locard} inspect $'\\xff.npz' >/dev/null", 0, ""),
    ],
)
def test_standard_streams_that_are_full_or_gone(folder, shell, code, error):
    locard("extract", "victim.skops", "--scheme", "akh", "--data", "queries.npz", "-o", "fp.locard")
    words = shell.format(locard=f"{shlex.quote(sys.executable)} -m locard")
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, error)


def test_a_bug_of_ours_is_not_hidden(monkeypatch):
    monkeypatch.setattr("locard.cli.schemes.print_json", lambda value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(["schemes", "--json"])


def test_an_interrupt_says_what_is_kept(monkeypatch, capsys):
    def interrupt(value):
        raise KeyboardInterrupt

    monkeypatch.setattr("locard.cli.schemes.print_json", interrupt)
    assert run(["schemes", "--json"]) == 130
    assert capsys.readouterr() == (
        "",
        "locard: interrupted; answers in a journal and finished models are kept\n",
    )


def test_version_and_help(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("locard ")
    assert run([]) == 0
    assert "verify" in capsys.readouterr().out
    for verb in ("schemes", "cite", "inspect", "extract", "calibrate", "verify", "compare", "demo"):
        assert run([verb, "--help"]) == 0
        assert "--help" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    code = "import sys; from locard.cli import run; run(['--help']); print(*(m for m in sys.modules if '.' not in m))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "scipy", "onnxruntime", "sklearn", "httpx", "jinja2"} & set(modules)


def test_cite_prints_each_paper_once(capsys):
    assert locard("cite", "ipguard", "akh", "random+labels+hamming") == 0
    printed = capsys.readouterr().out
    assert printed.count("@") == 2
    assert (
        "@inproceedings{cao2021ipguard,\n  author = {Xiaoyu Cao and Jinyuan Jia and Neil Zhenqiang Gong},\n" in printed
    )
    assert "  eprint = {1910.12903},\n  archiveprefix = {arXiv},\n}" in printed


def test_cite_knows_the_nearest_name(capsys):
    assert locard("cite", "ipgard") == 2
    assert "unknown scheme 'ipgard'; did you mean 'ipguard'?" in capsys.readouterr().err


def test_the_grid_is_listed_by_name(capsys):
    assert locard("schemes", "--grid", "100") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 96
    words = ["test", "RandomSubsample10/ZLIME", "subsample+local-explanations+l2", "--param", "sampler.masks=10"]
    assert [*words, "representation.answers=logits"] in [line.split() for line in lines]
    assert locard("schemes", "--grid", "50", "--json") == 0
    cells = json.loads(capsys.readouterr().out)
    assert len(cells) == 76
    assert {"split": "test", "name": "Negative/Labels", "scheme": "negative+labels+hamming", "params": {}} in cells
    assert locard("schemes", "--grid", "0") == 2
