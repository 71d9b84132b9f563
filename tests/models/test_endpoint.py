import dataclasses
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.models.fake_server import CLASSES, SHAPE, FakeServer, Output, digest, labels, logits, probabilities

from locard.errors import AccessError, ParameterError, RemoteModelError
from locard.models import Session, load
from locard.models._protocol_v2 import Codec, Reply, Tensor
from locard.models.endpoint import Address, EndpointModel
from locard.records import Access, Domain
from locard.testing.adapters import ADAPTER_LAWS, check_adapter

IMAGES = Domain(kind="image", shape=SHAPE, bounds=(0.0, 1.0))
EXACT = Output(compute=lambda x: x.reshape(len(x), -1), shape=(-1, 16))


@pytest.fixture(autouse=True)
def no_proxy_no_token(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("LOCARD_TOKEN", raising=False)


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


@pytest.fixture
def x():
    return np.random.default_rng(3).random((50, *SHAPE), dtype=np.float32)


def ask(model, x):
    return Session(model, model.native).answer(x, model.native)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("law", ADAPTER_LAWS)
def test_laws(server, x, law, binary):
    check_adapter(lambda: load(server.url, like=IMAGES, binary=binary), x[:8], law)


def test_metadata_tells_domain_classes_and_rung(server, x):
    model = load(server.url)
    assert model.domain == Domain(kind="image", shape=SHAPE)
    assert (model.native, model.classes, model.remote, model.source) == (
        Access.PROBABILITIES,
        CLASSES,
        True,
        server.url,
    )
    assert model.grants == Access.PROBABILITIES | Access.LABELS
    assert server.inferences == 0  # no query is paid for to find out
    assert (ask(model, x) == probabilities(x)).all()
    assert (Session(model, Access.LABELS).answer(x, Access.LABELS) == labels(x)).all()


@pytest.mark.parametrize(
    ("datatype", "shape", "domain"),
    [
        ("FP32", (-1, 7), Domain(kind="tabular", shape=(7,))),
        ("FP64", (-1, 7), Domain(kind="tabular", shape=(7,), dtype="float64")),
        ("INT64", (1, 7), Domain(kind="tabular", shape=(7,), dtype="int64")),
        ("INT32", (-1, 1, 2, 3), Domain(kind="image", shape=(1, 2, 3), dtype="int32")),
        ("UINT8", (-1, 1, 2, 3), Domain(kind="image", shape=(1, 2, 3), dtype="uint8", bounds=(0.0, 255.0))),
        ("BYTES", (-1,), Domain(kind="text", shape=(), dtype="str")),
        ("BYTES", (-1, 1), Domain(kind="text", shape=(), dtype="str")),
    ],
)
def test_domain_from_metadata(server, datatype, shape, domain):
    server.inputs = {"x": (datatype, shape)}
    model = load(server.url)
    assert model.domain == domain
    assert model.batch_size == (1 if shape[0] == 1 else 32)


@pytest.mark.parametrize(
    ("datatype", "shape"),
    [("FP32", (-1, 4, 4)), ("FP32", (-1, -1)), ("FP32", (-1,)), ("BOOL", (-1, 4)), ("BYTES", (-1, 3)), ("X9", (-1, 3))],
)
def test_a_declaration_that_tells_no_domain(server, datatype, shape):
    server.inputs = {"x": (datatype, shape)}
    with pytest.raises(ParameterError, match=r"tells no domain: give domain=Domain\(...\)"):
        load(server.url)


@pytest.mark.parametrize(
    ("datatype", "shape", "match"),
    [
        ("FP32", (-1, 16), r"takes 'x' FP32 \[-1, 16\].*inputs are image \(1, 4, 4\).*cannot be asked"),
        ("FP32", (-1, 3, 4, 4), "cannot be asked"),
        ("FP32", (8, 1, 4, 4), "a batch axis of 8 does not serve"),
        ("INT64", (-1, 1, 4, 4), "float32 cannot be sent as INT64"),
        ("BYTES", (-1, 1, 4, 4), "float32 cannot be sent as BYTES"),
        ("BF16", (-1, 1, 4, 4), "float32 cannot be sent as BF16"),
        ("FP16", (-1, 1, 4, 4), "speaks FP16.*give binary=True"),
    ],
)
def test_inputs_that_do_not_fit(server, datatype, shape, match):
    server.inputs = {"x": (datatype, shape)}
    with pytest.raises(ParameterError, match=match):
        load(server.url, like=IMAGES)
    assert server.inferences == 0


def test_text_is_not_sent_as_numbers(server):
    server.inputs = {"x": ("FP32", (-1,))}
    with pytest.raises(ParameterError, match="str cannot be sent as FP32"):
        load(server.url, like=Domain(kind="text", shape=(), dtype="str"))


def test_free_axes_take_what_is_asked(server, x):
    server.inputs = {"x": ("FP32", (-1, -1, -1, -1))}
    assert (ask(load(server.url, like=IMAGES), x) == probabilities(x)).all()


def test_a_batch_axis_of_one_is_asked_one_by_one(server, x):
    server.inputs = {"x": ("FP32", (1, *SHAPE))}
    assert (ask(load(server.url, like=IMAGES), x[:9]) == probabilities(x[:9])).all()
    assert server.inferences == 9


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(("shape", "sent"), [((-1,), 1), ((-1, 1), 2)])
def test_text(server, binary, shape, sent):
    server.inputs = {"x": ("BYTES", shape)}
    server.outputs = {"label": Output(lambda texts: np.array([len(t) for t in texts]), "INT64", (-1, 1))}
    texts = ["", "a", "naïve 模型", 'quote " \\ \n', "\0", "e" * 300]
    model = load(server.url, binary=binary, batch_size=4)
    assert model.native is Access.LABELS
    assert list(ask(model, np.array(texts, dtype=object))) == [len(text) for text in texts]
    assert sorted(text for batch in server.received for text in batch) == sorted(texts)


FLOATS = arrays(np.float32, (3, *SHAPE), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@pytest.mark.parametrize("binary", [False, True])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(x=FLOATS)
def test_float32_goes_there_and_back_exactly(binary, x):
    """An echo through both codecs, the server's being its own."""
    with FakeServer(outputs={"echo": EXACT}) as server:
        model = load(server.url, domain=dataclasses.replace(IMAGES, bounds=None), outputs="values", binary=binary)
        echo = next(model.stream(x))[1]
    assert echo.tobytes() == x.reshape(3, 16).tobytes()
    assert server.received[0].tobytes() == x.tobytes()


@pytest.mark.parametrize(
    ("datatype", "dtype", "values"),
    [
        ("FP64", "float64", [1 / 3, 5e-324, -1e30]),
        ("INT64", "int64", [2**62 + 1, -5, 0]),
        ("INT32", "int64", [2**31 - 1, -(2**31), 7]),
        ("UINT8", "uint8", [0, 255, 3]),
        ("FP64", "float32", [np.float32(0.1), 1.0, 2.0]),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_every_number_arrives(server, datatype, dtype, values, binary):
    server.inputs = {"x": (datatype, (-1, 3))}
    x = np.array([values], dtype)
    model = load(server.url, domain=Domain(kind="tabular", shape=(3,), dtype=dtype), binary=binary)
    ask(model, x)
    assert server.received[0].tolist() == x.tolist()


@pytest.mark.parametrize(
    ("datatype", "dtype", "value"),
    [("INT32", "int64", 2**31), ("UINT8", "int64", -1), ("FP32", "float64", 1e39), ("FP32", "int64", 2**24 + 1)],
)
def test_a_number_that_the_endpoint_cannot_hold(server, datatype, dtype, value):
    server.inputs = {"x": (datatype, (-1, 2))}
    model = load(server.url, domain=Domain(kind="tabular", shape=(2,), dtype=dtype))
    with pytest.raises(ParameterError, match=f"takes {datatype}, which cannot hold"):
        ask(model, np.array([[0, value]], dtype))
    assert server.inferences == 0


def test_half_precision_by_the_binary_extension(server, x):
    server.inputs = {"x": ("FP16", (-1, *SHAPE))}
    server.outputs = {"scores": Output(logits, "FP16")}
    assert np.array_equal(
        ask(load(server.url, like=IMAGES, binary=True, outputs="logits"), x),
        logits(x.astype(np.float16)).astype(np.float16).astype(np.float32),
    )


@pytest.mark.parametrize(
    ("output", "option", "native"),
    [
        (Output(labels, "INT64", (-1,)), None, Access.LABELS),
        (Output(labels, "INT32", (-1, 1)), None, Access.LABELS),
        (Output(labels, "UINT8", (-1,)), None, Access.LABELS),
        (Output(logits), "logits", Access.LOGITS),
        (Output(logits), "values", Access.VALUES),
        (Output(probabilities, "FP64"), None, Access.PROBABILITIES),
    ],
)
@pytest.mark.parametrize("binary", [False, True])
def test_meanings(server, x, output, option, native, binary):
    server.outputs = {"y": output}
    model = load(server.url, like=IMAGES, outputs=option, binary=binary)
    assert model.native is native
    assert model.classes == (None if native in (Access.LABELS, Access.VALUES) else CLASSES)
    assert np.array_equal(ask(model, x), output.compute(x))


def test_classes_by_option(server, x):
    """As a scheme on labels may need to know them."""
    server.outputs = {"a": Output(labels, "INT64", (-1,)), "b": Output(shape=(-1, -1)), "c": Output()}
    assert load(server.url, output="a", classes=CLASSES).classes == CLASSES
    with pytest.raises(RemoteModelError, match=r"answers labels from \d to 4; expected 0 to 2"):
        ask(load(server.url, output="a", classes=3), x)
    with pytest.raises(RemoteModelError, match="answers 5 numbers to an input; 3 were declared"):
        ask(load(server.url, output="b", classes=3), x)
    with pytest.raises(ParameterError, match="answers 5 numbers to an input; got classes=3"):
        load(server.url, output="c", classes=3)
    with pytest.raises(ParameterError, match="answers values, which have no classes; got classes=5"):
        load(server.url, output="c", outputs="values", classes=CLASSES)


@pytest.mark.parametrize(
    ("output", "option", "match"),
    [
        (Output(shape=(-1,)), None, r"expected \[n, classes\] for probabilities"),
        (Output(shape=(-1, 2, 2)), "logits", r"expected \[n, classes\] for logits"),
        (Output(), "labels", r"labels are whole numbers of shape \[n\] or \[n, 1\]"),
        (Output(datatype="INT64"), "labels", "labels are whole numbers"),
        (Output(datatype="BYTES", shape=(-1,)), None, "expected numbers: choose another output='name'"),
        (Output(), "scores", "outputs must be one of"),
        (Output(datatype="FP16"), "logits", "give binary=True"),
    ],
)
def test_an_output_that_cannot_mean_that(server, output, option, match):
    server.outputs = {"y": output}
    with pytest.raises(ParameterError, match=match):
        load(server.url, like=IMAGES, outputs=option)


def test_one_of_several_outputs(server, x):
    server.outputs = {"a": Output(), "b": Output(logits), "label": Output(labels, "INT64", (-1,))}
    with pytest.raises(ParameterError, match=r"3 outputs: 'a' FP32 \[-1, 5\], .*say which with output='name'"):
        load(server.url, like=IMAGES)
    with pytest.raises(ParameterError, match=r"unknown output of .* 'labels'; did you mean 'label'"):
        load(server.url, like=IMAGES, output="labels")
    for name, outputs, expected in [
        ("label", None, labels(x)),
        ("b", "logits", logits(x)),
        ("a", None, probabilities(x)),
    ]:
        for binary in (False, True):
            assert np.array_equal(ask(load(server.url, output=name, outputs=outputs, binary=binary), x), expected)


def test_one_of_several_inputs(server):
    server.inputs = {"x": ("FP32", (-1, *SHAPE)), "mask": ("INT64", (-1, 4))}
    with pytest.raises(ParameterError, match=r"2 inputs: .*'mask' INT64 \[-1, 4\]; say which with input='name'"):
        load(server.url, like=IMAGES)
    assert load(server.url, input="mask").domain == Domain(kind="tabular", shape=(4,), dtype="int64")


@pytest.mark.parametrize("binary", [False, True])
def test_a_server_that_declares_nothing(server, x, binary):
    """As MLServer does for a model whose settings list no tensors."""
    server.inputs, server.metadata_trouble = {}, lambda call: call.reply(200, {"name": "net", "inputs": []})
    with pytest.raises(ParameterError, match=r"does not say what its inputs are: give input='name' and domain"):
        load(server.url, like=IMAGES)
    with pytest.raises(ParameterError, match=r"does not say what its inputs are: give domain"):
        load(server.url, input="x")
    model = load(server.url, like=IMAGES, input="x", binary=binary)
    assert model.classes is None
    assert (ask(model, x) == probabilities(x)).all()
    assert model.classes == CLASSES
    server.outputs["more"] = Output()
    with pytest.raises(
        RemoteModelError, match=r"answers the outputs \['scores', 'more'\]; say which with output='name'"
    ):
        ask(load(server.url, like=IMAGES, input="x", binary=binary), x)


def test_versions(server, x):
    ask(load(f"{server.url}/versions/3", like=IMAGES), x[:1])
    ask(load(server.server, like=IMAGES, name="net", version="4"), x[:1])
    ask(load(f"{server.server}/v2/", like=IMAGES, name="net"), x[:1])
    ask(load(f"{server.url}/infer", like=IMAGES), x[:1])
    assert [path.removeprefix("/v2/models/net") for _, path, _ in server.requests] == [
        "/versions/3", "/versions/3/infer", "/versions/4", "/versions/4/infer", "", "/infer", "", "/infer",
    ]  # fmt: skip


def test_concurrency_is_bounded_and_used(server, x):
    state = {"now": 0, "most": 0}

    def count(call):
        with server.lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
        call.fake.closing.wait(0.03)
        with server.lock:
            state["now"] -= 1
        return False

    server.trouble = count
    for concurrency in (1, 3):
        state["most"] = 0
        ask(load(server.url, like=IMAGES, batch_size=2, concurrency=concurrency), x)
        assert state["most"] == concurrency


def test_answers_are_handed_over_as_they_come_in_any_order(server, x):
    server.trouble = lambda call: call.number == 1 and call.answer(pause=0.3)
    model = load(server.url, like=IMAGES, batch_size=10)
    order = [part.start for part, _ in model.stream(x)]
    assert digest(x[order[-1]]) == digest(server.received[-1][0])  # the late one
    assert sorted(order) == [0, 10, 20, 30, 40]
    server.trouble = None
    assert (ask(model, x) == probabilities(x)).all()


def test_a_stream_may_be_left(server, x):
    server.trouble = lambda call: call.number > 2 and call.hang()
    stream = EndpointModel(server.url, domain=IMAGES, batch_size=5).stream(x)
    next(stream)
    stream.close()  # would take 30 s if it waited for what hangs
    assert len(server.answered) <= 10


def test_works_inside_a_running_event_loop(server, x):
    """As in a notebook."""
    import asyncio

    async def cell():
        return ask(load(server.url, like=IMAGES), x)

    assert (asyncio.run(cell()) == probabilities(x)).all()


def test_the_batch_shrinks_with_the_input(server):
    server.inputs = {"x": ("FP32", (-1, 3, 224, 224))}
    assert load(server.url).batch_size == 1
    server.inputs = {"x": ("FP32", (-1, 1, 112, 112))}
    assert load(server.url).batch_size == 20
    assert load(server.url, batch_size=3).batch_size == 3


def test_no_gradients_no_weights(server):
    model = load(server.url)
    with pytest.raises(AccessError, match=r"LOGITS is asked of .* which gives PROBABILITIES"):
        Session(model, Access.LOGITS)
    with pytest.raises(AccessError, match="does not show its weights"):
        model.weights()


# Addresses, options, credentials


@pytest.mark.parametrize(
    ("source", "model"),
    [
        ("http://h/v2/models/net", "http://h/v2/models/net"),
        ("HTTP://H:80/v2/models/net/", "http://h:80/v2/models/net"),
        (
            "https://gate.example/team/a/v2/models/net/versions/2",
            "https://gate.example/team/a/v2/models/net/versions/2",
        ),
        ("http://user:secret@h:8000/v2/models/net?key=secret#f", "http://h:8000/v2/models/net"),
        ("http://[::1]:8000/v2/models/a%2Fb", "http://[::1]:8000/v2/models/a%2Fb"),
    ],
)
def test_addresses(source, model):
    assert Address.parse(source).model == model


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("http://", "names no host"),
        ("http:///v2/models/net", "names no host"),
        ("http://h:99999/v2/models/net", "host or port that cannot be"),
        ("http://h:port/v2/models/net", "host or port that cannot be"),
        ("http://[::1/v2/models/net", "host or port that cannot be"),
        ("http://a b/v2/models/net", "names no host"),
        ("http://h/v2/models/n\net", "names no host"),
        ("http://h/v2/models/", r"no model has the address 'http://h/v2/models/'"),
        ("http://h/v2/models/net/versions", "no model has the address"),
        ("http://h/v2/health/live", "no model has the address"),
        ("http://h", "does not list its models: give the name of one, as name='...'"),
        ("http://h/prefix/v2", "does not list its models"),
    ],
)
def test_addresses_that_are_none(source, match):
    with pytest.raises(ParameterError, match=match) as caught:
        load(source)
    assert "HOST[:PORT]/v2/models/NAME" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_that_contradict_the_url():
    with pytest.raises(ParameterError, match="name='other' contradicts the URL, which says 'net'"):
        load("http://h/v2/models/net", name="other")
    with pytest.raises(ParameterError, match="version='2' contradicts the URL, which says '1'"):
        load("http://h/v2/models/net/versions/1", version="2")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"timeuot": 3}, "unknown option of an endpoint 'timeuot'; did you mean 'timeout'"),
        ({"timeout": 0}, r"timeout must lie in \(0, 86400\]; got 0"),
        ({"tries": 0}, "tries must lie in"),
        ({"tries": 1.5}, "tries must be a whole number; got 1.5"),
        ({"concurrency": 1000}, "concurrency must lie in"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1; got 0"),
        ({"version": 1}, "version must be text; got 1"),
        ({"mean": [0.5]}, "unknown option of an endpoint 'mean'"),
        ({"token_env": "NO_SUCH_TOKEN"}, "'NO_SUCH_TOKEN', named to hold the token, is not set"),
    ],
)
def test_options_out_of_range(options, match):
    with pytest.raises(ParameterError, match=match):
        load("http://127.0.0.1:1/v2/models/net", **options)


def test_digest_names_url_model_version_and_options(server):
    other = {"a": {}, "b": {"version": "1"}, "c": {"output": "scores"}, "d": {"outputs": "values"}}
    digests = [load(server.url, **options).digest for options in other.values()]
    assert len(set(digests)) == len(digests)
    assert load(server.url).digest == load(server.server, name="net").digest == digests[0]
    assert load(server.url.replace("//", "//user:secret@") + "?key=1").digest == digests[0]


def test_the_token_is_sent_and_shown_nowhere(server, x, monkeypatch, tmp_path):
    monkeypatch.setenv("LOCARD_TOKEN", "s3cret-token\n")
    model = load(server.url, like=IMAGES)
    Session(model, Access.LABELS, journal=tmp_path / "j").answer(x, Access.LABELS)
    assert {headers["authorization"] for _, _, headers in server.requests} == {"Bearer s3cret-token"}
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"s3cret" not in kept
    assert "s3cret" not in repr(vars(model)) + repr(vars(vars(model)["_line"])) + model.source + model.digest
    monkeypatch.setenv("LOCARD_TOKEN", "")
    load(server.url)
    assert "authorization" not in server.requests[-1][2]
    monkeypatch.setenv("MINE", "other")
    load(server.url, token_env="MINE")  # noqa: S106 - the name of a variable
    assert server.requests[-1][2]["authorization"] == "Bearer other"


def test_a_token_that_is_none(server, monkeypatch):
    monkeypatch.setenv("LOCARD_TOKEN", "two\r\nlines: s3cret")
    with pytest.raises(
        ParameterError, match="token in the environment variable 'LOCARD_TOKEN' is not printable"
    ) as caught:
        load(server.url)
    assert "s3cret" not in str(caught.value)


def test_user_and_query_of_the_url_are_sent_and_shown_nowhere(server, x, monkeypatch):
    monkeypatch.setenv("LOCARD_TOKEN", "not this")
    model = load(server.url.replace("//", "//me:p%40ss@") + "?key=s3cret", like=IMAGES)
    ask(model, x[:1])
    assert [path for _, path, _ in server.requests] == ["/v2/models/net?key=s3cret", "/v2/models/net/infer?key=s3cret"]
    assert {headers["authorization"] for _, _, headers in server.requests} == {"Basic bWU6cEBzcw=="}
    server.trouble = lambda call: call.reply(400, {"error": "user me with p@ss and bWU6cEBzcw== may not"})
    with pytest.raises(RemoteModelError, match=r"user me with \*\*\* and \*\*\* may not") as caught:
        ask(model, x)
    assert "s3cret" not in str(caught.value)


# The codec alone


def test_replies_are_little_endian_and_found_behind_other_outputs():
    codec = Codec(who="m", url="u", input=Tensor(name="x", datatype="FP32"), output=Tensor(name="y"), binary=True)
    values = np.arange(6, dtype="<f8").reshape(2, 3)
    head = json.dumps({"outputs": [
        {"name": "a", "datatype": "FP32", "shape": [1], "data": [1.0]},
        {"name": "b", "datatype": "INT8", "shape": [3], "parameters": {"binary_data_size": 3}},
        {"name": "y", "datatype": "FP64", "shape": [2, 3], "parameters": {"binary_data_size": 48}},
    ]}).encode()  # fmt: skip
    reply = Reply(body=head + b"\1\2\3" + values.tobytes(), headers={"inference-header-content-length": str(len(head))})
    assert np.array_equal(codec.answers(reply, 2), values)


def test_nested_data_is_as_good_as_flat():
    codec = Codec(who="m", url="u", input=Tensor(name="x", datatype="FP32"), output=None, binary=False)
    body = {"outputs": [{"name": "y", "datatype": "INT64", "shape": [2, 2], "data": [[1, 2], [3, 2**62 + 1]]}]}
    assert codec.answers(Reply(body=json.dumps(body).encode(), headers={}), 2).tolist() == [[1, 2], [3, 2**62 + 1]]


def test_rows_are_counted_by_what_the_server_received(server, x):
    """The fake server's own count agrees with the session's."""
    session = Session(load(server.url, like=IMAGES, batch_size=7), Access.LABELS)
    session.answer(np.concatenate([x, x[:10]]), Access.LABELS)
    assert session.asked == sum(server.answered.values()) == 50
    assert set(server.answered) == {digest(row) for row in x}
