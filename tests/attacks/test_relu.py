"""One-hidden-layer ReLU networks, solved for from their answers and held against the weights that nobody was shown."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from locard.attacks import accept, build
from locard.attacks._relu_layers import layers as solved
from locard.attacks._relu_layers import signs
from locard.attacks._relu_lines import Space, stretches
from locard.attacks._relu_search import Search
from locard.attacks._relu_units import gradients
from locard.errors import AccessError, BudgetError, ParameterError
from locard.models import Session, exported, folder, load, onnx, restrict, view
from locard.models.callable import CallableModel
from locard.models.torch_module import TorchModel
from locard.records import Access, Data, Domain
from locard.testing import ATTACK_LAWS, check_attack

BOX = (0.0, 1.0)


def network(d, h, outputs, seed=0, dtype=torch.float64):
    """Standard normal weights by the square root of their number, small biases."""
    source = np.random.default_rng(seed)
    module = nn.Sequential(nn.Linear(d, h), nn.ReLU(), nn.Linear(h, outputs)).to(dtype)
    arrays = (source.normal(size=(h, d)) / np.sqrt(d), 0.3 * source.normal(size=h),
              source.normal(size=(outputs, h)) / np.sqrt(h), source.normal(size=outputs))  # fmt: skip
    with torch.no_grad():
        for parameter, array in zip(module.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(array))
    return module


def as_model(module, *, bounds=None, **options):
    first = next(module.parameters())
    domain = Domain(kind="tabular", shape=(first.shape[1],), dtype=str(first.dtype).removeprefix("torch."),
                    bounds=bounds)  # fmt: skip
    return TorchModel(module, domain=domain, batch_size=1024, **options)


def steal(module, *, bounds=None, seed=0, **params):
    attack = build("relu", params)
    return attack.derive(restrict(as_model(module, bounds=bounds), attack.needs), seed=seed)


def inputs(d, n=100_000, bounds=None, seed=1):
    source = np.random.default_rng(seed)
    return torch.from_numpy(source.normal(size=(n, d)) if bounds is None else source.uniform(0, 1, (n, d)))


def error(stolen, module, bounds=None, n=100_000):
    x = inputs(next(module.parameters()).shape[1], n, bounds).to(next(module.parameters()).dtype)
    with torch.no_grad():
        return float((stolen.module(x) - module(x)).abs().max())


def layers(module):
    """Rows with their bias, of length 1 each, and the last layer's columns as long as they then are."""
    first, last = [part for part in module.modules() if isinstance(part, nn.Linear)]
    rows = torch.cat([first.weight, first.bias[:, None]], dim=1).detach().numpy()
    sizes = np.linalg.norm(rows, axis=1)
    return rows / sizes[:, None], last.weight.detach().numpy() * sizes, last.bias.detach().numpy()


def assert_equal_up_to_permutation_and_scale(stolen, module, tolerance=1e-10):
    (rows, weights, bias), (ours, theirs, last) = layers(module), layers(stolen.module)
    assert rows.shape == ours.shape
    cosines = ours @ rows.T
    match = cosines.argmax(axis=1)
    assert sorted(match) == list(range(len(rows))), "each unit once"
    assert (1 - cosines.max(axis=1)).max() < 1e-8
    assert np.abs(ours - rows[match]).max() < tolerance
    assert np.abs(theirs - weights[:, match]).max() < tolerance
    assert np.abs(last - bias).max() < tolerance


@pytest.mark.parametrize("bounds", [None, BOX])
@pytest.mark.parametrize("seed", range(3))
def test_a_random_network_of_10_15_1_is_found_exactly(seed, bounds):
    module = network(10, 15, 1, seed)
    stolen = steal(module, bounds=bounds)
    assert error(stolen, module, bounds) < 1e-12
    assert_equal_up_to_permutation_and_scale(stolen, module)
    assert stolen.architecture == "mlp"
    assert stolen.arguments == {"shape": [10], "classes": 1, "hidden": [15]}


@pytest.mark.parametrize("bounds", [None, BOX])
def test_so_is_one_of_many_outputs(bounds):
    module = network(20, 12, 4)
    stolen = steal(module, bounds=bounds)
    assert error(stolen, module, bounds) < 1e-12
    assert_equal_up_to_permutation_and_scale(stolen, module)


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [None, BOX])
def test_a_random_network_of_784_32_1_is_found_exactly(bounds):
    module = network(784, 32, 1)
    stolen = steal(module, bounds=bounds)
    assert error(stolen, module, bounds, n=10_000) < 1e-11
    assert_equal_up_to_permutation_and_scale(stolen, module)


@pytest.fixture(scope="module")
def digits(parts):
    """Whether a digit is above four, learnt in float64."""
    own = parts["victim"]
    x, y = torch.from_numpy(own.inputs.reshape(-1, 64)).double(), torch.from_numpy(own.labels > 4).double()
    module = network(64, 32, 1)
    adam = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(150):
        adam.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(module(x)[:, 0], y).backward()
        adam.step()
    assert ((module(x)[:, 0] > 0) == (y > 0)).double().mean() > 0.95
    return module


def test_a_network_trained_on_digits_is_found_exactly(digits):
    stolen = steal(digits)
    assert error(stolen, digits) < 1e-10
    assert_equal_up_to_permutation_and_scale(stolen, digits, 1e-9)


def test_within_bounds_it_is_exact_on_digits_whatever_bends_in_corners_alone(digits, parts):
    stolen = steal(digits, bounds=BOX)
    assert 28 <= stolen.arguments["hidden"][0] <= 32
    assert error(stolen, digits, BOX) < 1e-10
    x = torch.from_numpy(parts["held out"].inputs.reshape(-1, 64)).double()
    with torch.no_grad():
        assert float((stolen.module(x) - digits(x)).abs().max()) < 1e-10


def test_more_hidden_units_than_equations_for_their_signs_are_found_too():
    module = network(20, 35, 1)
    stolen = steal(module)
    assert error(stolen, module) < 1e-12
    assert_equal_up_to_permutation_and_scale(stolen, module)


def test_queries_are_three_gradients_a_unit_the_lines_and_a_search():
    module = network(64, 32, 1)
    session = Session(as_model(module), Access.LOGITS)
    stolen = build("relu").derive(view(session, Access.LOGITS))
    assert stolen.effort.queries == session.asked
    lines = 3 * 1024 + 3 * 64
    assert lines + 3 * 32 * 66 < session.asked < lines + 3 * 33 * 66 + 32 * 60
    coarse = steal(module, refine=False)
    assert lines + 33 * 66 < coarse.effort.queries < session.asked - 32 * 2 * 65
    assert error(coarse, module) < 1e-8


def ask_of(module):
    def ask(x):
        with torch.no_grad():
            return module(torch.from_numpy(x)).numpy()

    return ask


@pytest.mark.parametrize("seed", range(5))
def test_every_bend_of_a_line_is_found_and_is_a_critical_point(seed):
    module, source = network(10, 40, 1, seed), np.random.default_rng(seed)
    u, v = source.normal(size=(2, 10))
    space = Space(size=10, bounds=None, reach=1000.0, dtype="float64")
    found = stretches(lambda t: ask_of(module)(u + t[:, None] * v), space.along(np.array([-1000.0, 0, 1000])),
                      lambda t: 1e-14 * np.maximum(1, np.abs(t)))  # fmt: skip
    bends = found.bends()[found.joined]
    rows, shifts = (p.detach().numpy() for p in module[0].parameters())
    true = np.sort(-(rows @ u + shifts) / (rows @ v))
    true = true[np.abs(true) < 1000]
    assert len(bends) == len(true)
    assert np.abs((u + bends[:, None] * v) @ rows.T + shifts).min(axis=1).max() < 1e-7


def test_two_bends_in_opposite_ways_are_not_taken_for_one():
    # The straight pieces before 0.50 and behind 0.51 meet at 0.49, where the answer is the predicted one.
    def ask(t):
        return (np.maximum(t - 0.50, 0) - 0.5 * np.maximum(t - 0.51, 0) * 1.0)[:, None]

    found = stretches(ask, np.linspace(0, 1, 9), lambda t: np.full(len(t), 1e-14))
    assert np.allclose(found.bends()[found.joined], [0.50, 0.51], atol=1e-10)


def test_differences_are_the_gradients_that_torch_gives():
    module = network(10, 15, 3)
    x = inputs(10, 4).numpy()
    space = Space(size=10, bounds=None, reach=1.0, dtype="float64")
    values, slopes, off = gradients(ask_of(module), space, x, np.full(4, 1e-6), np.random.default_rng(0))
    exact = torch.autograd.functional.jacobian(lambda z: module(z).sum(dim=0), torch.from_numpy(x)).transpose(0, 1)
    assert np.allclose(slopes, exact.numpy(), atol=1e-8)
    assert np.array_equal(values, ask_of(module)(x))
    assert off.max() < 1e-14
    # Steps across hyperplanes show.
    assert gradients(ask_of(module), space, x, np.full(4, 1.0), np.random.default_rng(0))[2].min() > 1e-4


@pytest.mark.parametrize("shape", [(9, 4), (9, 9), (5, 12)])
def test_signs_are_those_that_a_search_of_all_gives(shape):
    source = np.random.default_rng(0)
    jumps = source.normal(size=shape)
    for chosen in itertools.islice(itertools.product([False, True], repeat=shape[0]), 3, None, 41):
        total = jumps[list(chosen)].sum(axis=0)
        every = itertools.product([False, True], repeat=shape[0])
        (only,) = [one for one in every if np.abs(jumps[list(one)].sum(axis=0) - total).max() < 1e-9]
        assert signs(jumps, total, 1e-9).tolist() == list(only) == list(chosen)
    assert signs(jumps, source.normal(size=shape[1]), 1e-9) is None


def test_a_unit_planted_twice_is_found_once_and_the_copy_is_exact():
    module = network(10, 15, 2)
    with torch.no_grad():
        for name in ("weight", "bias"):
            values = getattr(module[0], name)
            values[14] = 2 * values[3]
    stolen = steal(module)
    assert stolen.arguments["hidden"] == [14]
    assert error(stolen, module) < 1e-12


def test_a_dead_unit_is_not_found_and_the_copy_is_exact_where_it_looked():
    module = network(10, 15, 2)
    with torch.no_grad():
        first, _, last = (list(part.parameters()) for part in module)
        first[1][4] = -50
        last[0][:, 7] = 0
    stolen = steal(module, bounds=BOX)
    assert stolen.arguments["hidden"] == [13]
    assert error(stolen, module, BOX) < 1e-12
    assert stolen.notes[0].startswith(
        "13 hidden units; on 128 inputs that it was not fitted to, the copy is off by at "
    )


def test_a_copy_is_judged_on_inputs_that_it_was_not_fitted_to(monkeypatch):
    fitted, module, source = [], network(10, 15, 2), np.random.default_rng(0)
    monkeypatch.setattr("locard.attacks.relu.layers", lambda *given: fitted.append(given[0].x) or solved(*given))

    def ask(x):
        return ask_of(module)(x) + 1e-6 * source.normal(size=(len(x), 2))

    model = CallableModel(ask, domain=as_model(module).domain, outputs="logits", classes=2, name="noisy")
    note = build("relu", {"lines": 24}).derive(restrict(model, Access.LOGITS)).notes[0]
    assert note.startswith("15 hidden units; on 3 inputs that it was not fitted to")
    # Three lines of three points are left out.
    assert len(fitted[0]) == 3 * (24 - 3)


@pytest.mark.parametrize(("bounds", "spares"), [(BOX, 2), (None, 4)])
def test_what_is_linear_everywhere_is_carried_by_units_of_the_copys_own(bounds, spares):
    module = network(10, 15, 2)

    class Skipped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = module

        def forward(self, x):
            return self.inner(x) + 0.3 * x[:, :2] - x[:, 2:4]

    victim = Skipped()
    stolen = steal(victim, bounds=bounds)
    assert error(stolen, victim, bounds) < 1e-12
    assert stolen.arguments["hidden"] == [15 + spares]
    assert any(note.startswith(f"{spares} hidden units of the copy's own carry a linear part") for note in stolen.notes)


def test_probabilities_give_the_same_network_less_the_mean_over_classes():
    module = network(10, 15, 3)
    stolen = steal(module, answers="probabilities", reach=30.0)
    x = inputs(10)
    with torch.no_grad():
        ours, theirs = (m(x) - m(x).mean(dim=1, keepdim=True) for m in (stolen.module, module))
    assert float((ours - theirs).abs().max()) < 1e-12
    with pytest.raises(ParameterError, match=r"answers a probability of 0.* give a smaller --param reach"):
        steal(module, answers="probabilities")


def test_float32_answers_give_a_copy_of_their_own_precision_or_a_refusal():
    module = network(10, 15, 3, dtype=torch.float32)
    stolen = steal(module, reach=30.0)
    assert next(stolen.module.parameters()).dtype == torch.float32
    assert 1e-7 < error(stolen, module) < 1e-3
    with pytest.raises(ParameterError, match=r"no network of one hidden ReLU layer, or answers too coarsely"):
        steal(network(64, 32, 1, dtype=torch.float32), bounds=BOX)


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        ((nn.GELU(),), r"bend on \d+ of 1024 lines, but not as hidden ReLU units do: there is none"),
        ((nn.Tanh(),), r"bend on \d+ of 1024 lines, but not as hidden ReLU units do: there is none"),
        ((), r"never bend as hidden ReLU units do: there is none to solve for"),
        ((nn.ReLU(), nn.Linear(15, 15), nn.ReLU()), "by another amount at each place of one hyperplane"),
    ],
    ids=["gelu", "tanh", "linear", "deep"],
)
@pytest.mark.parametrize("bounds", [None, BOX])
def test_what_is_no_such_network_is_refused_before_many_queries(middle, message, bounds):
    outer = network(10, 15, 2)
    victim = nn.Sequential(outer[0], *middle, outer[2]).double()
    session = Session(as_model(victim, bounds=bounds), Access.LOGITS)
    with pytest.raises(ParameterError, match=message):
        build("relu").derive(view(session, Access.LOGITS))
    assert session.asked < 20_000


def test_rounded_answers_are_refused():
    model = as_model(network(10, 15, 2))
    with pytest.raises(ParameterError, match=r"no network of one hidden ReLU layer|not as hidden ReLU units do"):
        build("relu").derive(restrict(model, Access.LOGITS, decimals=2))


def test_a_bend_at_every_place_is_refused():
    with pytest.raises(ParameterError, match="bend more than 8,192 times on one line"):
        stretches(lambda t: np.sin(1e4 * t)[:, None], np.linspace(0, 1, 65), lambda t: np.full(len(t), 1e-14))


def test_a_spent_budget_ends_the_search_with_what_was_found():
    module = network(300, 24, 1)
    needed = steal(module).effort.queries
    session = Session(as_model(module), Access.LOGITS, budget=10_000)
    stolen = build("relu").derive(view(session, Access.LOGITS))
    assert stolen.effort.queries == session.asked == 10_000 < needed
    assert any("the search ended early" in note and "the budget of 10000 queries" in note for note in stolen.notes)
    # Units that were found in time are exact.
    ours, theirs = layers(stolen.module)[0][:, :300], layers(module)[0][:, :300]
    ours, theirs = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (ours, theirs))
    exact = (np.abs(ours @ theirs.T).max(axis=0) > 1 - 1e-10).sum()
    assert 10 <= exact < 24


@pytest.mark.parametrize("budget", [100, 3500])
def test_a_budget_that_ends_before_the_first_unit_is_an_error(budget):
    with pytest.raises(BudgetError, match=f"the budget of {budget} queries"):
        build("relu").derive(restrict(as_model(network(300, 24, 1)), Access.LOGITS, budget=budget))


@pytest.mark.parametrize("law", ATTACK_LAWS)
def test_keeps_the_laws_of_attacks(law):
    victim = as_model(network(10, 15, 3))
    data = Data(inputs=inputs(10, 60).numpy(), labels=None, domain=victim.domain, name="normal inputs")
    check_attack("relu", law, victim=victim, data=data)


def test_another_seed_gives_another_copy():
    module = network(10, 15, 3)
    ours, theirs = (as_model(steal(module, seed=seed).module).digest for seed in (7, 8))
    assert ours != theirs


def test_normalisation_and_shape_are_the_victims_own(digits):
    module = nn.Sequential(nn.Flatten(), *digits)
    domain = Domain(kind="image", shape=(1, 8, 8), dtype="float64", bounds=BOX, quantum=1 / 16)
    model = TorchModel(module, domain=domain, mean=(0.3,), std=(0.4,), batch_size=1024)
    stolen = build("relu").derive(restrict(model, Access.LOGITS))
    x = inputs(64, 1000, BOX).reshape(-1, 1, 8, 8)
    with torch.no_grad():
        assert float((stolen.module(x) - model.module()(x)).abs().max()) < 1e-10
    assert stolen.arguments["shape"] == [1, 8, 8]
    assert stolen.notes[-1] == "inputs were asked between the steps of 0.0625 that the victim's domain has"


def test_a_float64_copy_is_written_and_read_in_every_form(tmp_path):
    module = network(10, 15, 3)
    stolen, victim = steal(module), as_model(module)
    x = inputs(10, 200).numpy()
    answers = restrict(victim, Access.LOGITS).logits(x)
    assert answers.dtype == np.float64
    copy = TorchModel(stolen.module, domain=victim.domain, lineage=stolen.lineage)
    folder.save(tmp_path / "copy", stolen.module, architecture="mlp", arguments=stolen.arguments, domain=victim.domain)
    exported.save(copy, tmp_path / "copy.pt2")
    onnx.export(copy, tmp_path / "copy.onnx")
    for name in ("copy", "copy.pt2", "copy.onnx"):
        read = restrict(load(tmp_path / name, trust=name.endswith("pt2")), Access.LOGITS).logits(x)
        assert read.dtype == np.float64
        assert np.abs(read - answers).max() < 1e-12, name


def test_a_stolen_copy_is_judged_by_agreement_with_its_victim(parts):
    held = parts["held out"]
    domain = Domain(kind="tabular", shape=(64,), dtype="float64")
    data = Data(inputs=held.inputs.reshape(-1, 64).astype(np.float64), labels=held.labels, domain=domain, name="held")
    model = as_model(network(64, 16, 10))
    stolen = build("relu").derive(restrict(model, Access.LOGITS))
    found = accept(build("relu"), TorchModel(stolen.module, domain=domain), model, data)
    assert found.accepted
    assert found.agreement == 1


def test_any_callable_that_answers_float64_can_be_solved_for():
    module = network(6, 5, 2)
    domain = Domain(kind="tabular", shape=(6,), dtype="float64")
    model = CallableModel(ask_of(module), domain=domain, outputs="logits", classes=2, name="api")
    stolen = build("relu").derive(restrict(model, Access.LOGITS))
    assert error(stolen, module) < 1e-12
    assert stolen.effort.queries < 4200


def test_more_units_than_lines_are_not_believed():
    with pytest.raises(ParameterError, match="more hidden units were found than lines were to be explained, 16"):
        steal(network(4, 40, 2), lines=16)


def test_what_gives_no_real_numbers_or_too_little_is_refused():
    wide = CallableModel(lambda x: x[:, :2], domain=Domain(kind="tabular", shape=(5000,), dtype="float64"),
                         outputs="logits", classes=2, name="wide")  # fmt: skip
    with pytest.raises(ParameterError, match=r"inputs of at most 4,096 numbers; wide takes tabular \(5000,\) float64"):
        build("relu").derive(restrict(wide, Access.LOGITS))
    words = CallableModel(lambda x: np.zeros((len(x), 2)), domain=Domain(kind="tokens", shape=(4,), dtype="int64"),
                          outputs="logits", classes=2, name="words")  # fmt: skip
    with pytest.raises(ParameterError, match="relu asks real numbers; words takes tokens"):
        build("relu").derive(restrict(words, Access.LOGITS))
    with pytest.raises(AccessError, match="relu needs LOGITS of the victim"):
        build("relu").derive(restrict(as_model(network(4, 3, 2)), Access.PROBABILITIES))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"answers": "labels"}, "answers must be 'logits' or 'probabilities'; got 'labels'"),
        ({"lines": 4}, r"lines must lie in \[16"),
        ({"reach": 0.0}, r"reach must lie in \[1, 1000000"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(ParameterError, match=message):
        build("relu", wrong)


def test_the_noise_that_is_measured_is_the_noise_that_is_there():
    module = network(10, 15, 1)
    source = np.random.default_rng(0)

    def ask(x):
        return ask_of(module)(x) + 1e-6 * source.normal(size=(len(x), 1))

    search = Search(ask, Space(size=10, bounds=None, reach=10.0, dtype="float64"), lines=16, refine=True, seed=0)
    assert 0.5e-6 < search.noise(np.zeros((1, 10)))[0] < 2e-6
