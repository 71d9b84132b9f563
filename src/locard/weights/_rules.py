"""What each operation demands of the axes that it touches; see `Trace`.

An operation must give permuted answers to permuted inputs along every axis that its rule leaves free; one that this
page does not list fixes all it touches, so a network of unknown parts loses symmetries and keeps its answers.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from locard.weights._trace import BOTH, MAGNITUDE, SIGN, Kind, Rule, Spot, Trace, Value, values

Labelled = tuple[Value, Sequence[Hashable]]


def pointwise(
    trace: Trace, out: Value, operands: Sequence[Value], kinds: tuple[Kind, ...] = (), *, straight: bool = False
) -> None:
    """Entry by entry, short axes repeated; `kinds` of common scale pass from all operands to the answer."""
    lost: tuple[Kind, ...] = tuple(kind for kind in BOTH if kind not in kinds)
    for axis in range(len(out.shape)):
        spots = [_aligned(out, axis, one) for one in operands]
        there = [spot for spot in spots if spot is not None]
        trace.tie((out, axis), *there, straight=straight and len(there) == len(spots))
        for spot in spots:
            trace.balance(((out, axis), 1), *([] if spot is None else [(spot, -1)]), kinds=kinds)
        trace.still((out, axis), *there, kinds=lost)


def product(
    trace: Trace, out: Value, operands: Sequence[Labelled], result: Sequence[Hashable], powers: Sequence[int] = (1, 1)
) -> None:
    """Sums of products, as `einsum` writes them; axes of one label are permuted alike, and their exponents add up."""
    for label in dict.fromkeys(label for _, labels in operands for label in labels):
        terms = [((one, k), power) for (one, labels), power in zip(operands, powers, strict=False)
                 for k, there in enumerate(labels) if there == label]  # fmt: skip
        ends: list[Spot] = [(out, k) for k, there in enumerate(result) if there == label]
        trace.tie(*(spot for spot, _ in terms), *ends, straight=len(terms) + len(ends) == 2)
        trace.balance(*terms, *((spot, -1) for spot in ends))
        if not ends:
            trace.read += [spot for spot, _ in terms]


def _aligned(out: Value, axis: int, one: Value) -> Spot | None:
    at = axis - len(out.shape) + len(one.shape)
    return (one, at) if at >= 0 and one.shape[at] == out.shape[axis] else None


def _tensors(arguments: dict[str, Any]) -> list[Value]:
    return values([one for name, one in arguments.items() if name != "out"])


def _unary(*kinds: Kind, straight: bool = False) -> Rule:
    def rule(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
        pointwise(trace, out, _tensors(arguments), kinds, straight=straight)

    return rule


def _same(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    trace.hand_on((arguments["self"], None), (out, None))


def _cast(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    dtype = arguments.get("dtype")
    if dtype is None or dtype.is_floating_point:
        return _same(trace, out, arguments)
    # Rounding to whole numbers knows the scale.
    pointwise(trace, out, [arguments["self"]])


def _pair(arguments: dict[str, Any]) -> list[Value]:
    # A number is a tensor without axes.
    return [one if isinstance(one, Value) else Value((), []) for one in (arguments["self"], arguments["other"])]


def _add(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    pointwise(trace, out, _pair(arguments), BOTH, straight=True)


def _multiply(*powers: int) -> Rule:
    def rule(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
        if arguments.get("rounding_mode") is not None:
            return pointwise(trace, out, _pair(arguments))
        axes = range(len(out.shape))
        operands: list[Labelled] = []
        for one in _pair(arguments):
            spots = [_aligned(out, axis, one) for axis in axes]
            labels = {spot[1]: axis for axis, spot in enumerate(spots) if spot is not None}
            operands.append((one, [labels.get(k, ("repeated", k)) for k in range(len(one.shape))]))
        product(trace, out, operands, axes, powers)

    return rule


def _biased(trace: Trace, out: Value, axis: int, bias: Value | None) -> None:
    """Add a bias along one axis of a value that has its demands already."""
    if bias is None:
        return
    axis %= len(out.shape)
    trace.tie((out, axis), (bias, 0), straight=True)
    trace.balance(((out, axis), 1), ((bias, 0), -1))
    for other in range(len(out.shape)):
        if other != axis:
            trace.tie((out, other))
            trace.still((out, other))


def _linear(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    x, weight = arguments["input"], arguments["weight"]
    if len(weight.shape) != 2:
        return _fix_all(trace, out, arguments)
    lead = list(range(len(x.shape) - 1))
    product(trace, out, [(x, [*lead, "in"]), (weight, ["out", "in"])], [*lead, "out"])
    _biased(trace, out, -1, arguments.get("bias"))


def _add_product(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    product(trace, out, [(arguments["mat1"], "nk"), (arguments["mat2"], "km")], "nm")
    pointwise(trace, out, [arguments["self"]], BOTH, straight=True)


def _convolution(*, turned: bool) -> Rule:
    def rule(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
        x, weight, groups = arguments["input"], arguments["weight"], arguments.get("groups", 1)
        if len(x.shape) != len(weight.shape):
            return _fix_all(trace, out, arguments)
        for value in (x, weight, out):
            trace.fix(value, *range(2, len(x.shape)))
        if groups == 1:
            product(trace, out, [(x, "ni"), (weight, "io" if turned else "oi")], "no")
        else:
            inputs, answers = trace.view(x, _grouped(x, 1, groups)), trace.value(_grouped(out, 1, groups))
            split = trace.view(weight, _grouped(weight, 0, groups))
            product(trace, answers, [(inputs, "ngi"), (split, "gio" if turned else "goi")], "ngo")
            trace.hand_on((answers, None), (out, None))
        _biased(trace, out, 1, arguments.get("bias"))

    return rule


def _grouped(value: Value, axis: int, groups: int) -> tuple[int, ...]:
    return (*value.shape[:axis], groups, value.shape[axis] // groups, *value.shape[axis + 1 :])


def _matmul(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    one, other = arguments["self"], arguments["other" if "other" in arguments else "mat2"]
    result: list[Hashable] = list(range(len(out.shape)))
    ours: list[Hashable] = ["k"]
    theirs: list[Hashable] = ["k"]
    if len(other.shape) > 1:
        theirs.append(result[-1])
    if len(one.shape) > 1:
        ours.insert(0, result[-1 if len(other.shape) == 1 else -2])
    ends = (len(one.shape) > 1) + (len(other.shape) > 1)
    for value, labels in ((one, ours), (other, theirs)):
        lead = len(value.shape) - len(labels)
        for k in reversed(range(lead)):
            at = len(out.shape) - ends - lead + k
            labels.insert(0, at if value.shape[k] == out.shape[at] else ("repeated", k))
    product(trace, out, [(one, ours), (other, theirs)], result)


def _einsum(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    equation, operands = arguments["equation"].replace(" ", ""), arguments["tensors"]
    terms, arrow, result = equation.partition("->")
    if not arrow or "." in equation or len(operands) > 2:
        return _fix_all(trace, out, arguments)
    product(trace, out, list(zip(operands, terms.split(","), strict=True)), result)


def _attention(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    query, key, value = arguments["query"], arguments["key"], arguments["value"]
    if not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        return _fix_all(trace, out, arguments)
    lead = list(range(len(query.shape) - 2))
    scores = trace.value((*query.shape[:-1], key.shape[-2]))
    product(trace, scores, [(query, [*lead, "t", "d"]), (key, [*lead, "s", "d"])], [*lead, "t", "s"])
    shares, mask = trace.value(scores.shape), arguments.get("attn_mask")
    pointwise(trace, shares, [scores] if mask is None else [scores, mask])
    product(trace, out, [(shares, [*lead, "t", "s"]), (value, [*lead, "s", "d"])], [*lead, "t", "d"])


def _batch_norm(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    x, mean, variance = arguments["input"], arguments["running_mean"], arguments["running_var"]
    weight, bias = arguments.get("weight"), arguments.get("bias")
    if arguments.get("training") or mean is None:
        return _fix_all(trace, out, arguments)
    variance.offset = arguments["eps"]
    here, end = (x, 1), (out, 1)
    trace.tie(here, end, *((one, 0) for one in (weight, bias, mean, variance) if one is not None))
    gain: list[tuple[Spot, int]] = [] if weight is None else [((weight, 0), 1)]
    trace.balance(((mean, 0), 1), (here, -1))
    # A variance that left its inputs behind would do no harm now, and all the more in the first step of a training.
    trace.balance(((variance, 0), 1), (here, -2))
    trace.balance((end, -1), *gain, kinds=MAGNITUDE)
    trace.balance((end, 1), *gain, (here, 1), kinds=SIGN)
    trace.balance((end, 1), *([] if bias is None else [((bias, 0), -1)]))
    _elsewhere(trace, x, out, {1})


def _layer_norm(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    _normalise(trace, arguments["input"], out, arguments, centred=True)


def _rms_norm(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    _normalise(trace, arguments["input"], out, arguments, centred=False)


def _normalise(trace: Trace, x: Value, out: Value, arguments: dict[str, Any], *, centred: bool) -> None:
    weight, bias = arguments.get("weight"), arguments.get("bias")
    lead = len(x.shape) - len(arguments["normalized_shape"])
    for axis in range(lead, len(x.shape)):
        here, end, at = (x, axis), (out, axis), axis - lead
        trace.tie(here, end, *((one, at) for one in (weight, bias) if one is not None))
        gain: list[tuple[Spot, int]] = [] if weight is None else [((weight, at), 1)]
        trace.still(here, kinds=BOTH if centred else MAGNITUDE)
        trace.balance((end, -1), *gain, kinds=MAGNITUDE)
        # Without the centring a coordinate's sign goes through to the answer.
        trace.balance((end, -1), *gain, *([] if centred else [(here, 1)]), kinds=SIGN)
        if centred:
            trace.balance((end, -1), *([] if bias is None else [((bias, at), 1)]))
    _elsewhere(trace, x, out, set(range(lead, len(x.shape))))


def _group_norm(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    x, groups = arguments["input"], arguments["num_groups"]
    shape = _grouped(x, 1, groups)
    inputs, normal = trace.view(x, shape), trace.value(shape)
    pointwise(trace, normal, [inputs])
    answers = normal
    for name, rule in (("weight", _multiply(1, 1)), ("bias", _add)):
        if arguments.get(name) is None:
            continue
        part = trace.view(arguments[name], (groups, shape[2], *[1] * (len(shape) - 3)))
        answers, before = trace.value(shape), answers
        rule(trace, answers, {"self": before, "other": part})
    trace.hand_on((answers, None), (out, None))


def _elsewhere(trace: Trace, x: Value, out: Value, but: set[int]) -> None:
    """Axes that a normalisation leaves alone; a scale along them would not pass."""
    for axis in set(range(len(x.shape))) - but:
        trace.tie((x, axis), (out, axis))
        trace.still((x, axis), (out, axis))


def _prelu(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    x, weight = arguments["self"], arguments["weight"]
    pointwise(trace, out, [x], MAGNITUDE)
    if weight.shape != (1,):
        trace.tie((x, 1), (weight, 0))
        trace.still((weight, 0))


def _embedding(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    weight, indices = arguments["weight"], arguments["indices"]
    trace.fix(weight, 0)
    for axis in range(len(indices.shape)):
        trace.tie((indices, axis), (out, axis))
        trace.still((indices, axis), (out, axis))
    trace.hand_on((weight, 1), (out, len(indices.shape)))


def _reduce(*kinds: Kind, straight: bool = False) -> Rule:
    def rule(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
        x, given = arguments["self"], arguments.get("dim")
        gone = {d % len(x.shape) for d in (given if isinstance(given, list) else [given] if given is not None else [])}
        gone = gone or set(range(len(x.shape)))
        left = [axis for axis in range(len(x.shape)) if axis not in gone]
        ends = left if len(out.shape) == len(x.shape) else range(len(left))
        for axis in gone:
            trace.tie((x, axis))
            trace.still((x, axis))
        for axis, end in zip(left, ends, strict=True):
            _through(trace, (x, axis), (out, end), kinds, straight=straight)

    return rule


def _through(trace: Trace, here: Spot, end: Spot, kinds: tuple[Kind, ...], *, straight: bool) -> None:
    trace.tie(here, end, straight=straight)
    trace.balance((here, 1), (end, -1), kinds=kinds)
    trace.still(here, end, kinds=tuple(kind for kind in BOTH if kind not in kinds))


def _permute(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    x = arguments["self"]
    order = list(range(len(x.shape)))
    if "dims" in arguments:
        order = [d % len(order) for d in arguments["dims"]]
    else:
        one, other = (arguments.get(name, k) % len(order) for name, k in (("dim0", 0), ("dim1", 1)))
        order[one], order[other] = other, one
    for end, axis in enumerate(order):
        trace.hand_on((x, axis), (out, end))


def _window(sides: int, *kinds: Kind, straight: bool = False) -> Rule:
    """Pooling and its like: the last axes stay in order."""

    def rule(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
        x = _tensors(arguments)[0]
        lead = len(x.shape) - sides
        for value in (x, out):
            trace.fix(value, *range(lead, len(x.shape)))
        for axis in range(lead):
            _through(trace, (x, axis), (out, axis), kinds, straight=straight)

    return rule


def _pad(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    x = arguments["self"]
    kinds = () if arguments.get("value") else BOTH
    for axis in range(len(x.shape)):
        if x.shape[axis] != out.shape[axis]:
            trace.fix(x, axis)
            trace.fix(out, axis)
        else:
            _through(trace, (x, axis), (out, axis), kinds, straight=False)


def _cut(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    """Parts along one axis, which stays in order."""
    x = arguments["self"]
    if out.shape == x.shape:
        return trace.hand_on((x, None), (out, None))
    at = arguments.get("dim", 0) % len(x.shape)
    trace.fix(x, at)
    for part in values(arguments["out"]):
        shorter = len(part.shape) < len(x.shape)
        if not shorter:
            trace.fix(part, at)
        for axis in range(len(x.shape)):
            if axis != at:
                trace.hand_on((x, axis), (part, axis - (shorter and axis > at)))


def _join(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    """The reverse of `_cut`."""
    at = arguments.get("dim", 0) % len(out.shape)
    trace.fix(out, at)
    for part in arguments["tensors"]:
        shorter = len(part.shape) < len(out.shape)
        if not shorter:
            trace.fix(part, at)
        for axis in range(len(out.shape)):
            if axis != at:
                trace.hand_on((part, axis - (shorter and axis > at)), (out, axis))


def _fix_all(trace: Trace, out: Value, arguments: dict[str, Any]) -> None:
    for value in [out, *_tensors(arguments)]:
        trace.fix(value)


_NAMED: list[tuple[Rule, str]] = [
    (_same, "view reshape _unsafe_view flatten unflatten squeeze unsqueeze clone contiguous alias detach"),
    (_cast, "to _to_copy"),
    (_add, "add sub rsub"),
    (_unary(*BOTH, straight=True), "neg expand"),
    (_multiply(1, 1), "mul"),
    (_multiply(1, -1), "div"),
    (_unary(*MAGNITUDE), "relu leaky_relu abs"),
    (_unary(*SIGN), "tanh sin sinh asinh atan erf"),
    (_unary(), "gelu silu mish sigmoid exp log sqrt rsqrt reciprocal elu selu celu softplus hardswish hardsigmoid cos "
               "hardtanh relu6 clamp clamp_min log_sigmoid softmax _softmax log_softmax _log_softmax maximum minimum "
               "pow where masked_fill eq ne gt ge lt le logical_not logical_and logical_or"),
    (_linear, "linear"),
    (_add_product, "addmm"),
    (_convolution(turned=False), "conv1d conv2d conv3d"),
    (_convolution(turned=True), "conv_transpose1d conv_transpose2d conv_transpose3d"),
    (_matmul, "matmul bmm mm"),
    (_einsum, "einsum"),
    (_attention, "scaled_dot_product_attention"),
    (_batch_norm, "batch_norm _native_batch_norm_legit_no_training"),
    (_layer_norm, "layer_norm native_layer_norm"),
    (_rms_norm, "rms_norm"),
    (_group_norm, "group_norm"),
    (_prelu, "prelu"),
    (_embedding, "embedding"),
    (_reduce(*BOTH, straight=True), "sum mean"),
    (_reduce(*MAGNITUDE), "amax amin"),
    (_permute, "permute transpose t"),
    (_pad, "pad constant_pad_nd"),
    (_cut, "select slice split split_with_sizes chunk unbind"),
    (_join, "cat stack"),
    *((_window(k, *BOTH, straight=True), f"avg_pool{k}d adaptive_avg_pool{k}d "
                                         f"upsample_nearest{k}d") for k in (1, 2, 3)),
    *((_window(k, *MAGNITUDE), f"max_pool{k}d max_pool{k}d_with_indices adaptive_max_pool{k}d") for k in (1, 2, 3)),
]  # fmt: skip

RULES = {name: rule for rule, names in _NAMED for name in names.split()}
