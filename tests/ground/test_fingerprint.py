"""The artefact: what is saved is what is read, and a stranger's file is refused or read, never run."""

import json
import stat
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from locard.errors import ArtefactError
from locard.fingerprint import SCHEMA, Fingerprint
from locard.records import Calibration, Domain, Lineage, Reference


def fingerprint(**changes):
    fields = {
        "scheme": "akh",
        "params": {},
        "claim": "derived",
        "seed": 3,
        "cost": 4,
        "domain": Domain(kind="image", shape=(1, 2, 2), bounds=(0.0, 1.0), quantum=1 / 255),
        "classes": 10,
        "model": "ab" * 32,
        "lineage": Lineage(architecture="cnn", seed=1),
        "victim_access": "LABELS",
        "suspect_access": "LABELS",
        "versions": {"locard": "0"},
        "queries": {"inputs": np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 1, 2, 2)},
        "record": {"labels": np.array([1, 2, 3, 4])},
        "accuracy": 0.5,
        "check": {"inputs": np.zeros((2, 1, 2, 2), np.float32), "labels": np.array([0, 1])},
    }
    return Fingerprint(**fields | changes)


def calibration():
    rows = tuple(
        Reference(name=f"r{i}", digest=f"{i:064x}", stratum="disjoint", score=0.1 * i, accuracy=None) for i in range(3)
    )
    return Calibration(references=rows, derived=rows[:1], agreement=(0.0, 0.25, 1.0, 0.5))


def header_of(raw):
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length])


def rewritten(change):
    """The bytes of a sound file whose JSON header was changed, in a container that is itself sound."""
    fp = fingerprint().with_calibration(calibration())
    header = json.loads(header_of(fp.to_bytes())["__metadata__"]["locard"])
    change(header)
    return save(fp.tensors(), metadata={"locard": json.dumps(header)})


def load(tmp_path, raw, **options):
    path = tmp_path / "fp.locard"
    path.write_bytes(raw)
    return Fingerprint.load(path, **options)


def test_round_trip(tmp_path):
    fp = fingerprint().with_calibration(calibration())
    again = Fingerprint.load(fp.save(tmp_path / "fp.locard"))
    assert again.to_bytes() == fp.to_bytes()
    assert again.calibration == fp.calibration
    assert again.domain == fp.domain
    assert again.lineage == fp.lineage
    np.testing.assert_array_equal(again.queries["inputs"], fp.queries["inputs"])
    assert stat.S_IMODE((tmp_path / "fp.locard").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["fp.locard"]


def test_text_round_trip(tmp_path):
    words = np.array(["", "naïve", "two\nlines", "\U0001f50d" * 3], dtype=object)
    domain = Domain(kind="text", shape=(), dtype="str")
    fp = fingerprint(domain=domain, queries={"inputs": words}, check={})
    again = Fingerprint.load(fp.save(tmp_path / "fp.locard"))
    assert again.queries["inputs"].tolist() == words.tolist()
    assert again.content == fp.content


def test_calibration_has_a_digest_of_its_own():
    plain, calibrated = fingerprint(), fingerprint().with_calibration(calibration())
    assert plain.content == calibrated.content
    assert plain.calibration_digest is None
    other = replace(calibration(), agreement=None)
    assert calibrated.calibration_digest != plain.with_calibration(other).calibration_digest


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4}, {"params": {"margin": 1.0}}, {"model": "cd" * 32}, {"scheme": "sac"}, {"classes": 9}, {"cost": 5},
        {"victim_access": "LOGITS"}, {"versions": {"locard": "1"}}, {"accuracy": None},
        {"record": {"labels": np.array([1, 2, 3, 5])}}, {"record": {"labels": np.array([1, 2, 3, 4], np.int32)}},
        {"queries": {"other": np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 1, 2, 2)}},
    ],
)  # fmt: skip
def test_everything_that_matters_is_in_the_content_digest(change):
    assert fingerprint(**change).content != fingerprint().content


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda h: h.update(schema=SCHEMA + 1), "newer than this Locard reads"),
        (lambda h: h.update(schema="1"), "schema must be a positive integer"),
        (lambda h: h.update(surprise=1), "unknown field 'surprise'"),
        (lambda h: h.pop("seed"), "field 'seed' is missing"),
        (lambda h: h.update(seed="x"), "field 'seed' must be int"),
        (lambda h: h.update(seed=True), "field 'seed' must be int"),
        (lambda h: h.update(seed=-1), ">= 0"),
        (lambda h: h.update(claim="guilty"), "field 'claim' must be one of"),
        (lambda h: h["domain"].update(kind="sound"), "domain.kind must be"),
        (lambda h: h["domain"].update(shape=[-1]), "domain.shape must be"),
        (lambda h: h["domain"].update(bounds=[1, 0]), "domain.bounds must be"),
        (lambda h: h["domain"].update(extra=1), "unknown field 'extra'"),
        (lambda h: h["lineage"].update(seed="x"), "lineage.seed must be int"),
        (lambda h: h.update(cost=5), "content digest does not match"),
        (lambda h: h["calibration"]["references"][0].update(score=1.0), "calibration digest does not match"),
        (lambda h: h["calibration"]["references"][0].update(score="1"), "wrong type"),
        (lambda h: h["calibration"]["references"][0].pop("name"), "must hold name"),
        (lambda h: h["calibration"].update(agreement=[2.0]), "agreement"),
        (
            lambda h: h["calibration"].update(references=h["calibration"]["references"] * 2),
            "names the same model twice",
        ),
        (lambda h: h.update(classes=0), "field 'classes' must be >= 1"),
        (lambda h: h.update(accuracy=10**400), r"field 'accuracy' must lie in \[0, 1\]"),
        (lambda h: h["domain"].update(bounds=[0, 10**400]), "domain.bounds must be"),
        (lambda h: h["domain"].update(quantum=10**400), "domain.quantum must be"),
        (lambda h: h.update(data_name="\ud800"), "damaged or no fingerprint.*surrogates not allowed"),
        (lambda h: h["calibration"].update(references=3), "must be a list"),
        (lambda h: h["digests"].clear(), "content digest does not match"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, match):
    with pytest.raises(ArtefactError, match=match) as caught:
        load(tmp_path, rewritten(change))
    assert "\n" not in str(caught.value)


def test_not_a_fingerprint(tmp_path):
    with pytest.raises(ArtefactError, match="No such file"):
        Fingerprint.load(tmp_path / "none.locard")
    with pytest.raises(ArtefactError, match="is not a file"):
        Fingerprint.load(tmp_path)
    with pytest.raises(ArtefactError, match="truncated or no fingerprint"):
        load(tmp_path, b"")
    with pytest.raises(ArtefactError, match="damaged or no fingerprint"):
        load(tmp_path, struct.pack("<Q", 4) + b"{}}{" + b"\0" * 20)
    with pytest.raises(ArtefactError, match="no 'locard' header"):
        load(tmp_path, save({"x": np.zeros(3, np.float32)}))
    with pytest.raises(ArtefactError, match="damaged or no fingerprint"):
        load(tmp_path, save({"x": np.zeros(3, np.float32)}, metadata={"locard": "[" * 100_000}))
    with pytest.raises(ArtefactError, match="no JSON number"):
        load(tmp_path, save({"x": np.zeros(3, np.float32)}, metadata={"locard": '{"schema": NaN}'}))
    with pytest.raises(ArtefactError, match="damaged or no fingerprint"):
        load(tmp_path, save({"x": np.zeros(3, np.float32)}, metadata={"locard": '{"accuracy": 1e999}'}))
    with pytest.raises(ArtefactError, match="header must be a JSON object"):
        load(tmp_path, save({"x": np.zeros(3, np.float32)}, metadata={"locard": "[]"}))


def test_sizes_are_checked_before_anything_is_read(tmp_path):
    raw = fingerprint().to_bytes()
    with pytest.raises(ArtefactError, match=r"at most 100 are read"):
        load(tmp_path, raw, max_bytes=100)
    huge = struct.pack("<Q", 2**60) + raw[8:]
    with pytest.raises(ArtefactError, match="header is longer than the file"):
        load(tmp_path, huge)
    header = json.dumps({"queries/inputs": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    with pytest.raises(ArtefactError, match="damaged"):
        load(tmp_path, struct.pack("<Q", len(header)) + header)


def test_tensors_of_strange_names_or_values(tmp_path):
    fp = fingerprint()
    metadata = header_of(fp.to_bytes())["__metadata__"]
    without = {name: array for name, array in fp.tensors().items() if name != "check/inputs"}
    for tensors, match in [
        ({**fp.tensors(), "code/x": np.zeros(1, np.float32)}, "unexpected tensor 'code/x'"),
        ({**fp.tensors(), "record/x@ends": np.array([1])}, "unexpected tensor 'record/x@ends'"),
        (without, "'check' must hold 'inputs' and 'labels' or nothing; got labels"),
        ({**fp.tensors(), "check/labels": np.array([0, 1, 1])}, "a whole number for each input"),
        ({**fp.tensors(), "check/labels": np.array([0.0, 1.0])}, "a whole number for each input"),
        ({**fp.tensors(), "record/x": np.array([np.nan], np.float32)}, "NaN or infinity"),
        ({**fp.tensors(), "record/x": np.zeros(1, np.uint64)}, "dtype uint64"),
        ({**fp.tensors(), "queries/t@utf8": np.frombuffer(b"abc", np.uint8)}, "do not fit together"),
        (
            {**fp.tensors(), "queries/t@utf8": np.array([255], np.uint8), "queries/t@ends": np.array([1])},
            "no UTF-8",
        ),
        ({**fp.tensors(), "queries/t@utf8": np.array([97], np.uint8), "queries/t@ends": np.array([9])}, "do not fit"),
    ]:
        with pytest.raises(ArtefactError, match=match):
            load(tmp_path, save(tensors, metadata=metadata))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "BF16"])
def test_number_formats_that_numpy_has_not(tmp_path, dtype):
    fp = fingerprint()
    odd = {**fp.tensors(), "record/x": np.zeros(4, np.uint8 if dtype.startswith("F8") else np.int16)}
    raw = save(odd, metadata=header_of(fp.to_bytes())["__metadata__"])
    # Another package may have taught NumPy the format; it is none of ours all the same.
    with pytest.raises(ArtefactError, match=r"damaged or no fingerprint|'record/x' has dtype"):
        load(tmp_path, _with_dtype(raw, dtype))


def _with_dtype(raw, dtype):
    header = header_of(raw)
    body = raw[8 + struct.unpack("<Q", raw[:8])[0] :]
    header["record/x"]["dtype"] = dtype
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


RAW = fingerprint().with_calibration(calibration()).to_bytes()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_file_is_refused(tmp_path_factory, data):
    """Any flipped bit, cut or insertion ends in an ArtefactError of one line; nothing else escapes."""
    raw = bytearray(RAW)
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        at = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        if kind == "flip" and raw:
            raw[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut":
            del raw[at:]
        else:
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=8))
    if bytes(raw) == RAW:
        return
    path = tmp_path_factory.mktemp("fuzz") / "fp.locard"
    path.write_bytes(bytes(raw))
    try:
        again = Fingerprint.load(path)
    except ArtefactError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        # Only what carries no meaning may change: white space in the container's own header.
        assert again.to_bytes() == RAW


def test_cannot_write(tmp_path):
    with pytest.raises(ArtefactError, match="cannot write the fingerprint"):
        fingerprint().save(tmp_path / "missing" / "fp.locard")
