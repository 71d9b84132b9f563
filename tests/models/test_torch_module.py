"""torch modules: exact answers and gradients, and a module that is left as it was found."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from locard.errors import AccessError, ParameterError  # noqa: E402
from locard.models import Session, load, restrict  # noqa: E402
from locard.models.architectures import build  # noqa: E402
from locard.models.torch_module import evaluating  # noqa: E402
from locard.records import Access, Domain  # noqa: E402
from locard.testing import ADAPTER_LAWS, check_adapter, toy_data, toy_model  # noqa: E402

DOMAIN = Domain(kind="image", shape=(2, 4, 4), bounds=(0.0, 1.0))
ROW = Domain(kind="tabular", shape=(3,))
X = np.random.default_rng(0).random((11, 2, 4, 4), np.float32)
ROWS = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)


def network(activation: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    """Convolution, batch norm, dropout: layers whose mode matters."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), activation(), nn.Dropout(0.5), nn.Flatten(),
                               nn.Linear(16, 3))  # fmt: skip
        module(torch.rand(8, 2, 4, 4))
    return module


def linear():
    module = nn.Linear(3, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]))
        module.bias.copy_(torch.tensor([0.25, -0.5]))
    return module


def first_logit(logits):
    return logits[:, 0]


@pytest.mark.parametrize("law", ADAPTER_LAWS)
@pytest.mark.parametrize("outputs", ["logits", "values"])
def test_keeps_the_laws_of_adapters(outputs, law):
    check_adapter(lambda: load(network(), domain=DOMAIN, outputs=outputs), X, law)


# Exact values.


def test_answers_are_the_linear_models():
    model = load(linear(), domain=ROW)
    expected = ROWS @ np.array([[1, 0], [-2, 3], [0.5, -1]], np.float32) + np.array([0.25, -0.5], np.float32)
    assert np.allclose(Session(model, Access.LOGITS).answer(ROWS, Access.LOGITS), expected, atol=1e-6)
    assert (model.classes, model.native) == (2, Access.LOGITS)
    assert model.grants == Access.MODULE.implied | Access.MODULE


def test_gradient_of_one_logit_is_its_row_of_weights():
    logits, gradient = load(linear(), domain=ROW).input_gradient(ROWS, first_logit)
    assert np.array_equal(gradient, np.tile(np.array([1, -2, 0.5], np.float32), (5, 1)))
    assert logits.shape == (5, 2)


def test_gradient_of_the_cross_entropy_by_hand():
    # d/dx [log sum exp(z) - z_0] = W^T (softmax(z) - e_0), z = W x + b.
    model = load(linear(), domain=ROW)
    logits, gradient = model.input_gradient(ROWS, lambda z: z.logsumexp(1) - z[:, 0])
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[:, 0] -= 1
    assert np.allclose(gradient, p @ np.array([[1, -2, 0.5], [0, 3, -1]]), atol=1e-6)


def test_normalisation_by_hand():
    # z = W ((x - m) / s) + b, so the gradient of a logit is its row of W over s.
    model = load(linear(), domain=ROW, mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 0.5))
    plain = load(linear(), domain=ROW)
    m, s = np.array([1, 2, 3], np.float32), np.array([2, 4, 0.5], np.float32)
    assert np.allclose(model._forward(ROWS), plain._forward((ROWS - m) / s), atol=1e-5)
    _, gradient = model.input_gradient(ROWS, first_logit)
    assert np.allclose(gradient, np.array([1, -2, 0.5], np.float32) / s)
    with torch.no_grad():
        assert np.allclose(model.module()(torch.from_numpy(ROWS)).numpy(), model._forward(ROWS), atol=1e-6)


def test_normalisation_is_per_channel_or_one_for_all():
    module = network().eval()
    each = load(module, domain=DOMAIN, mean=(0.2, 0.4), std=(0.5, 2.0))
    by_hand = (X - np.array([0.2, 0.4], np.float32)[:, None, None]) / np.array([0.5, 2.0], np.float32)[:, None, None]
    assert np.allclose(each._forward(X), load(module, domain=DOMAIN)._forward(by_hand), atol=1e-5)
    one = load(module, domain=DOMAIN, mean=(0.3,))
    assert np.allclose(one._forward(X), load(module, domain=DOMAIN)._forward(X - np.float32(0.3)), atol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 11, 100])
def test_batch_size_changes_nothing(size):
    model, whole = load(network(), domain=DOMAIN, batch_size=size), load(network(), domain=DOMAIN)
    assert np.allclose(
        Session(model, Access.LOGITS).answer(X, Access.LOGITS), Session(whole, Access.LOGITS).answer(X, Access.LOGITS),
        atol=1e-6,
    )  # fmt: skip
    for ours, theirs in zip(model.input_gradient(X, first_logit), whole.input_gradient(X, first_logit), strict=True):
        assert np.allclose(ours, theirs, atol=1e-6)


def test_weights_are_parameters_and_buffers():
    module = network()
    weights = load(module, domain=DOMAIN).weights()
    assert weights.keys() == module.state_dict().keys()
    assert "1.running_mean" in weights
    assert all(np.array_equal(weights[name], value.numpy()) for name, value in module.state_dict().items())


# The module is left as it was found.


def test_modes_gradients_and_flags_are_restored():
    module = network().train()
    module[1].eval()
    module[5].weight.requires_grad_(False)
    module(torch.rand(4, 2, 4, 4)).sum().backward()
    modes = [part.training for part in module.modules()]
    flags = [p.requires_grad for p in module.parameters()]
    gradients = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    state = {name: value.clone() for name, value in module.state_dict().items()}
    model = load(module, domain=DOMAIN, mean=(0.5,), std=(0.5,))
    model._forward(X)
    model.input_gradient(X, first_logit)
    assert model.digest
    assert [part.training for part in module.modules()] == modes
    assert [p.requires_grad for p in module.parameters()] == flags
    for parameter, before in zip(module.parameters(), gradients, strict=True):
        assert parameter.grad is None if before is None else torch.equal(parameter.grad, before)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_modes_are_restored_after_an_error():
    module = network().train()
    seen = []

    def look():
        with evaluating(module):
            seen.extend(part.training for part in module.modules())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        look()
    assert seen == [False] * 7
    assert all(part.training for part in module.modules())


def test_evaluation_mode_is_what_answers():
    # In training mode dropout would answer at random and batch norm by the batch.
    module = network().train()
    model = load(module, domain=DOMAIN)
    assert np.array_equal(model._forward(X), model._forward(X))
    with torch.no_grad():
        assert np.allclose(model._forward(X), network().eval()(torch.from_numpy(X)).numpy(), atol=1e-6)


def test_read_only_inputs_serve_and_stay():
    x = X.copy()
    x.flags.writeable = False
    model = load(network(), domain=DOMAIN)
    model._forward(x)
    model.input_gradient(x, first_logit)
    assert np.array_equal(x, X)
    assert not x.flags.writeable


def test_inputs_are_left_as_they_are_by_a_module_that_works_in_place():
    x = X.copy()
    model = load(nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(32, 2)), domain=DOMAIN)
    shifted = x - np.float32(0.5)
    before = shifted.copy()
    model._forward(shifted)
    _, gradient = model.input_gradient(shifted, first_logit)
    assert np.array_equal(shifted, before)
    assert (gradient[shifted < 0] == 0).all()
    assert (gradient[shifted > 0] != 0).all()


def test_gradients_within_no_grad():
    model = load(network(), domain=DOMAIN)
    expected = model.input_gradient(X, first_logit)[1]
    with torch.no_grad():
        assert np.array_equal(model.input_gradient(X, first_logit)[1], expected)


# Errors, each on one line.


class Bad(nn.Module):
    """Answers whatever a function makes of its inputs."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


def test_nan_outputs_are_refused():
    module = linear()
    model = load(module, domain=ROW)
    with torch.no_grad():
        module.weight[0, 0] = float("nan")
    with pytest.raises(ParameterError, match="torch module Linear answers NaN or infinity to 5 of 5 inputs"):
        Session(model, Access.LOGITS).answer(ROWS, Access.LOGITS)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            nn.Linear(4, 2),
            r"torch module Linear fails on a batch of shape \(1, 3\) \(tabular \(3,\) float32\): RuntimeError",
        ),
        (Bad(lambda x: x[:, 0]), r"must answer \(n, classes\); got shape \('n',\)"),
        (Bad(lambda x: (x, x)), "fails on a batch of shape"),
        (Bad(lambda x: {"logits": x}), "torch module Bad fails on a batch of shape"),
        (nn.LSTM(3, 2), "torch module LSTM fails on a batch of shape"),
    ],
)
def test_modules_that_do_not_fit(module, message):
    with pytest.raises(ParameterError, match=message) as caught:
        load(module, domain=ROW)
    assert "\n" not in str(caught.value)


def test_wrong_inputs_are_refused_in_one_line():
    session = Session(load(network(), domain=DOMAIN), Access.LOGITS)
    for x, message in (
        (np.zeros((2, 2, 4, 5), np.float32), r"inputs must have shape \(n, 2, 4, 4\); got \(2, 2, 4, 5\)"),
        (np.full((2, 2, 4, 4), np.nan, np.float32), "inputs must be finite; 2 of 2 hold NaN or infinity"),
        (np.full((2, 2, 4, 4), 255, np.float32), r"inputs must lie in \[0, 1\]"),
    ):
        with pytest.raises(ParameterError, match=message) as caught:
            session.answer(x, Access.LOGITS)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.1, 0.2)}, r"mean and std need 1 or \(3,\) finite numbers; got \(0.1, 0.2\)"),
        ({"std": (float("inf"),)}, "mean and std need 1 or .* finite numbers"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"outputs": "odds"}, "outputs must be one of labels, probabilities, logits, values; got 'odds'"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1; got 0"),
        ({"bach_size": 3}, "unknown option of a torch module 'bach_size'; did you mean 'batch_size'"),
    ],
)
def test_options_that_are_wrong(options, message):
    with pytest.raises(ParameterError, match=message):
        load(linear(), domain=ROW, **options)


def test_a_module_needs_a_domain():
    with pytest.raises(ParameterError, match="a torch module does not say what its inputs are: give domain=Domain"):
        load(linear())
    assert load(linear(), like=ROW).domain == ROW


def test_losses_of_the_wrong_shape():
    model = load(linear(), domain=ROW)
    with pytest.raises(ParameterError, match=r"the loss must have shape \(5,\) or \(5, k\); got \(\)"):
        model.input_gradient(ROWS, lambda logits: logits.sum())


def test_gradients_that_do_not_exist():
    tokens = Domain(kind="tokens", shape=(3,), dtype="int64")
    words = load(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)), domain=tokens)
    with pytest.raises(
        ParameterError, match="gradients need floating-point inputs; torch module Sequential takes tokens"
    ):
        words.input_gradient(np.zeros((2, 3), np.int64), first_logit)
    cut = load(Bad(lambda x: x.detach() * 2), domain=ROW)
    with pytest.raises(ParameterError, match="torch module Bad gives no gradient by its inputs: element 0 of tensors"):
        cut.input_gradient(ROWS, first_logit)
    odds = load(nn.Sequential(linear(), nn.Softmax(1)), domain=ROW, outputs="probabilities")
    assert odds.grants == Access.PROBABILITIES.implied | Access.WEIGHTS
    with pytest.raises(AccessError, match="GRADIENTS is asked of torch module Sequential, which gives PROBABILITIES"):
        Session(odds, Access.GRADIENTS)


# The identity.


def digest(module, **options):
    return load(module, domain=DOMAIN, **options).digest


def test_digest_is_stable_and_ignores_how_it_is_run():
    assert digest(network()) == digest(network().eval()) == digest(network(), batch_size=3)
    assert len(digest(network())) == len(hashlib.sha256().hexdigest())


def test_digest_changes_with_what_is_computed():
    one = network()
    with torch.no_grad():
        one.get_parameter("5.weight")[1, 2] += 1e-3
    two = network()
    two.get_buffer("1.running_mean")[0] += 1e-3
    digests = [
        digest(network()),
        digest(one),
        digest(two),
        digest(network(nn.Tanh)),
        digest(network(seed=1)),
        digest(network(), mean=(0.5,)),
        digest(network(), mean=(0.25,)),
        digest(network(), std=(0.5,)),
        digest(network(), outputs="values"),
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor", "ignore:.*quantized")
def test_digest_and_weights_see_what_quantised_layers_pack_away():
    def quantised(by):
        module = nn.Sequential(linear())
        with torch.no_grad():
            module.get_parameter("0.weight")[0, 0] += by
        return load(torch.ao.quantization.quantize_dynamic(module, {nn.Linear}), domain=ROW)

    assert quantised(0.0).digest == quantised(0.0).digest != quantised(0.5).digest
    (weight,) = (value for value in quantised(0.5).weights().values() if value.shape == (2, 3))
    assert np.allclose(weight, [[1.5, -2, 0.5], [0, 3, -1]], atol=3 / 127)


@pytest.mark.parametrize(
    ("access", "blur", "match"),
    [
        (Access.LOGITS, {"top_k": 1}, "top_k cuts probabilities, and LOGITS shows every score"),
        (Access.GRADIENTS, {"noise": 0.1}, "GRADIENTS shows the model behind them"),
        (Access.MODULE, {"decimals": 1}, "MODULE shows the model behind them"),
    ],
)
def test_a_blur_that_the_grant_would_undo_is_refused(access, blur, match):
    with pytest.raises(ParameterError, match=match):
        restrict(toy_model(0, gradients=True), access, **blur)


@pytest.mark.parametrize(
    ("blur", "match"),
    [
        ({"decimals": 400}, r"decimals must lie in \[0, 17\]; got 400"),
        ({"decimals": 1.5}, "decimals must be a whole number; got 1.5"),
        ({"top_k": 1.5}, "top_k must be a whole number; got 1.5"),
        ({"budget": 1.5}, "budget must be a whole number; got 1.5"),
    ],
)
def test_a_view_out_of_range_is_refused(blur, match):
    with pytest.raises(ParameterError, match=match):
        restrict(toy_model(0), Access.PROBABILITIES, **blur)


def test_the_most_decimals_leave_answers_finite():
    model, x = toy_model(0), np.random.default_rng(0).random((9, 1, 8, 8), np.float32)
    plain, rounded = (restrict(model, Access.LOGITS, decimals=one).logits(x) for one in (None, 17))
    np.testing.assert_allclose(rounded, plain, rtol=1e-6)


def test_a_module_view_has_gradients():
    x = np.random.default_rng(0).random((3, 1, 8, 8), np.float32)
    seen = restrict(toy_model(0, gradients=True), Access.MODULE)
    logits, gradient = seen.input_gradient(x, lambda scores: scores.sum(dim=1))
    assert (logits.shape, gradient.shape) == ((3, 5), x.shape)
    np.testing.assert_allclose(logits, seen.logits(x), atol=1e-5)


def test_several_losses_are_asked_in_one_pass():
    model = toy_model(0, gradients=True, batch_size=7)
    asked, x = restrict(model, Access.GRADIENTS), toy_data(20).inputs
    logits, all_slopes = asked.input_gradient(x, lambda logits: logits)
    assert all_slopes.shape == (20, 5, 1, 8, 8)
    for k in range(5):
        alone, slope = asked.input_gradient(x, lambda logits, k=k: logits[:, k])
        assert np.abs(all_slopes[:, k] - slope).max() <= 1e-5
        assert np.array_equal(alone, logits)


def test_a_network_of_many_layers_is_asked_more_at_once():
    domain = Domain(kind="image", shape=(1, 8, 8), bounds=(0.0, 1.0))
    sizes = [load(build(name, shape=[1, 8, 8], classes=3), domain=domain).batch_size for name in ("cnn", "resnet")]
    assert sizes == [64, 256]
