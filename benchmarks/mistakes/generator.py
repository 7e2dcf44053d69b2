"""Writes random correct networks as source text: depth, widths, activations, losses, layout, naming and habits vary.

What is written is what a person could have written; `tests/check/backward/test_benchmark.py` compares a
sample with finite differences. On all of them `sg.check_backward` must find nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from benchmarks.mistakes import loops
from benchmarks.mistakes.network import MARKER, Network, parsed

PRIMES = (2, 3, 5, 7, 11, 13)

FUNCTIONS = {
    "relu": ("np.maximum({z}, 0)", "np.maximum(0, {z})", "{z} * ({z} > 0)", "np.where({z} > 0, {z}, 0)"),
    "leaky": ("np.where({z} > 0, {z}, 0.1 * {z})", "np.maximum({z}, 0.1 * {z})"),
    "tanh": ("np.tanh({z})",),
    "sigmoid": ("1 / (1 + np.exp(-{z}))", "sigmoid({z})"),
    "elu": ("np.where({z} > 0, {z}, np.exp(np.minimum({z}, 0)) - 1)",),
    "softplus": ("np.log(1 + np.exp({z}))", "np.log1p(np.exp({z}))"),
    "swish": ("{z} * sigmoid({z})", "{z} / (1 + np.exp(-{z}))"),
    "softsign": ("{z} / (1 + np.abs({z}))",),
    "sine": ("np.sin({z})",),
    "identity": ("{z}",),
}
DERIVATIVES = {
    "relu": ("({z} > 0)", "({a} > 0)", "np.where({z} > 0, 1, 0)", "({z} > 0).astype(float)", "np.heaviside({z}, 0)"),
    "leaky": ("np.where({z} > 0, 1, 0.1)", "(({z} > 0) + 0.1 * ({z} <= 0))", "np.where({a} > 0, 1.0, 0.1)"),
    "tanh": (
        "(1 - {a}**2)",
        "(1 - {a} * {a})",
        "(1 - np.tanh({z}) ** 2)",
        "(1 - np.square({a}))",
        "(1 / np.cosh({z}) ** 2)",
    ),
    "sigmoid": ("{a} * (1 - {a})", "({a} - {a}**2)", "sigmoid({z}) * (1 - sigmoid({z}))"),
    "elu": ("np.where({z} > 0, 1, np.exp(np.minimum({z}, 0)))", "np.where({z} > 0, 1.0, {a} + 1)"),
    "softplus": ("sigmoid({z})", "(1 / (1 + np.exp(-{z})))"),
    "swish": ("(sigmoid({z}) + {z} * sigmoid({z}) * (1 - sigmoid({z})))", "({a} + sigmoid({z}) * (1 - {a}))"),
    "softsign": ("(1 - np.abs({a})) ** 2", "(1 / (1 + np.abs({z})) ** 2)"),
    "sine": ("np.cos({z})",),
    "identity": ("",),
}
NAMES_OF_GRADIENTS = ("d{}", "d_{}", "grad_{}", "g{}", "{}_grad", "delta_{}")
SIGMOID = "def sigmoid(v):\n    return 1 / (1 + np.exp(-v))\n\n\n"


@dataclass
class Writer:
    """One network being written.

    Attributes:
        choose: where the choices come from.
        rows: examples are rows; otherwise columns.
        depth: how many layers.
        bias: whether layers have biases.
        mean: where the mean over examples is taken: "first" gradient, "parameters", or nowhere ("sum").
        gradient: the pattern of the names of gradients.
        product: how products of matrices are written.
        one_name: gradients of all Z and A are kept in one variable, `delta`, written over at each layer.
    """

    choose: random.Random
    rows: bool = False
    depth: int = 2
    bias: bool = True
    mean: str = "first"
    gradient: str = "d{}"
    product: str = "@"
    one_name: bool = False
    sizes: list[int] = field(default_factory=list)
    forward: list[str] = field(default_factory=list)
    backward: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    gradients: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """What the gradient of a value is called."""
        if self.one_name and name[0] in "ZA":
            return "delta"
        return self.gradient.format(name)

    def times(self, left: str, right: str) -> str:
        """A product of matrices."""
        if self.product == "@":
            return f"{left} @ {right}"
        if self.product == ".dot":
            return f"{left}.dot({right})"
        return f"np.{self.product}({left}, {right})"

    def turned(self, name: str) -> str:
        return f"{name}.T" if self.choose.random() < 0.9 else f"{name}.transpose()"

    @property
    def count(self) -> str:
        """The number of examples, in code."""
        return self.choose.choice(("X.shape[0]", "len(X)")) if self.rows else "X.shape[1]"

    def over_examples(self, name: str) -> str:
        """A sum over the examples, in the shape of the bias."""
        axis = 0 if self.rows else 1
        keep = ", keepdims=True" if not self.rows else ""
        return self.choose.choice((f"np.sum({name}, axis={axis}{keep})", f"{name}.sum(axis={axis}{keep})"))

    def shape(self, features: int | str) -> str:
        return f"(n, {features})" if self.rows else f"({features}, n)"


def write(seed: int) -> str:
    """The source text of a random correct network, with what the benchmark has to know about it.

    Example:
        >>> "def backward(" in write(0)
        True
    """
    choose = random.Random(seed)
    if choose.random() < 0.15:
        return loops.write(choose, seed)
    w = Writer(
        choose,
        rows=choose.random() < 0.5,
        depth=choose.choice((1, 2, 2, 2, 3, 3, 4)),
        bias=choose.random() < 0.85,
        mean=choose.choice(("first", "parameters", "sum")),
        gradient=choose.choice(NAMES_OF_GRADIENTS),
        product=choose.choice(("@", "@", "dot", ".dot", "matmul")),
    )
    w.sizes = choose.sample(PRIMES, k=w.depth + 1)
    # a skip connection needs two equal sizes
    skip = choose.randrange(2, w.depth) if w.depth > 2 and choose.random() < 0.4 else 0
    if skip:
        w.sizes[skip] = w.sizes[skip - 1]
    w.one_name = not skip and choose.random() < 0.2
    penalty = choose.choice((None, None, "0.5 * decay", "decay"))
    w.inputs["X"] = f"rng.normal(size={w.shape(w.sizes[0])})"
    activations = [choose.choice(list(FUNCTIONS)[:9]) for _ in range(w.depth - 1)]
    combined = choose.random() < 0.4
    before = "X"
    for layer in range(1, w.depth + 1):
        before = _forward_layer(w, layer, before, activations, skip)
    first = _loss(w)
    if penalty:
        terms = " + ".join(f"np.sum(W{layer}**2)" for layer in range(1, w.depth + 1))
        w.forward.append(f"loss = loss + {penalty} * ({terms})")
        w.inputs["decay"] = "0.1"
    w.backward += first
    for layer in range(w.depth, 0, -1):
        _backward_layer(w, layer, activations, skip, penalty, combined)
    return _assembled(w, seed, penalty)


def _forward_layer(w: Writer, layer: int, before: str, activations: list[str], skip: int) -> str:
    fan_in, fan_out = w.sizes[layer - 1], w.sizes[layer]
    shape = (fan_in, fan_out) if w.rows else (fan_out, fan_in)
    w.inputs[f"W{layer}"] = f"{fan_in**-0.5:.2f} * rng.normal(size={shape})"
    product = w.times(before, f"W{layer}") if w.rows else w.times(f"W{layer}", before)
    if w.bias:
        w.inputs[f"b{layer}"] = f"rng.normal(size={(fan_out,) if w.rows else (fan_out, 1)})"
        product += f" + b{layer}"
    w.forward.append(f"Z{layer} = {product}")
    w.cached.append(f"Z{layer}")
    if layer == w.depth:
        return f"Z{layer}"
    text = w.choose.choice(FUNCTIONS[activations[layer - 1]]).format(z=f"Z{layer}")
    if layer == skip:
        text += f" + A{layer - 1}"
    w.forward.append(f"A{layer} = {text}")
    w.cached.append(f"A{layer}")
    return f"A{layer}"


def _backward_layer(
    w: Writer, layer: int, activations: list[str], skip: int, penalty: str | None, combined: bool
) -> None:
    dz, weights, bias = w.of(f"Z{layer}"), f"W{layer}", f"b{layer}"
    before = f"A{layer - 1}" if layer > 1 else "X"
    product = w.times(w.turned(before), dz) if w.rows else w.times(dz, w.turned(before))
    scale = "/ m" if w.mean == "parameters" else ""
    left = w.choose.random() < 0.5 and scale
    text = f"1 / m * ({product})" if left else f"({product}) / m" if scale else product
    separate = penalty and w.choose.random() < 0.4
    term = f"decay * {weights}" if penalty == "0.5 * decay" else f"2 * decay * {weights}"
    w.backward.append(f"{w.of(weights)} = {text}" + (f" + {term}" if penalty and not separate else ""))
    if separate:
        w.backward.append(f"{w.of(weights)} += {term}")
    w.gradients[w.of(weights)] = weights
    if w.bias:
        total = w.over_examples(dz)
        w.backward.append(f"{w.of(bias)} = {total}" + (" / m" if scale else ""))
        w.gradients[w.of(bias)] = bias
    if layer == 1:
        if w.mean != "parameters" and w.choose.random() < 0.3:
            back = w.times(dz, w.turned(weights)) if w.rows else w.times(w.turned(weights), dz)
            w.backward.append(f"{w.of('X')} = {back}")
            w.gradients[w.of("X")] = "X"
        return
    back = w.times(dz, w.turned(weights)) if w.rows else w.times(w.turned(weights), dz)
    a, z = f"A{layer - 1}", f"Z{layer - 1}"
    kind = activations[layer - 2]
    if skip == layer - 1 and kind in ("sigmoid", "tanh", "elu", "swish", "relu", "leaky", "softsign"):
        derivative = _at_preactivation(w, kind, z)  # the cached value is the sum with the skip connection
    else:
        derivative = w.choose.choice(DERIVATIVES[kind]).format(z=z, a=a)
    da, dz_before = w.of(a), w.of(z)
    if skip == layer:  # A of the layer before goes around this layer's activation as well
        around = w.of(f"A{layer}")
        if w.choose.random() < 0.5:
            w.backward += [f"{da} = {back}", f"{da} += {around}"]
        else:
            w.backward.append(f"{da} = {back} + {around}")
        w.backward.append(f"{dz_before} = {da} * {derivative}")
        return
    if kind == "relu" and w.choose.random() < 0.3:
        w.backward += [f"{dz_before} = {back}", f"{dz_before}[{z} <= 0] = 0"]
        if skip == layer - 1:
            w.backward.insert(-1, f"{w.of(a)} = {dz_before}.copy()")
    elif combined and skip != layer - 1:
        w.backward.append(f"{dz_before} = ({back}) * {derivative}")
    elif not derivative:
        w.backward.append(f"{dz_before} = {back}")
    elif w.choose.random() < 0.2:
        w.backward += [f"{da} = {back}", f"{dz_before} = np.multiply({da}, {derivative})"]
    elif skip != layer - 1 and w.choose.random() < 0.2:
        w.backward += [f"{dz_before} = {back}", f"{dz_before} *= {derivative}"]
    else:
        w.backward += [f"{da} = {back}", f"{dz_before} = {da} * {derivative}"]


def _at_preactivation(w: Writer, kind: str, z: str) -> str:
    texts = [text for text in DERIVATIVES[kind] if "{a}" not in text]
    return w.choose.choice(texts).format(z=z)


def _loss(w: Writer) -> list[str]:
    """Writes the loss, and returns the lines that compute the gradient of the last Z."""
    z, last = f"Z{w.depth}", w.sizes[-1]
    dz = w.of(z)
    w.forward.append(f"m = {w.count}")
    mean = "" if w.mean == "sum" else " / m"
    scaled = " / m" if w.mean == "first" else ""
    kind = w.choose.choice(("bce", "bce-unfused", "softmax", "labels", "mse", "mse-sigmoid", "mse-tanh", "logcosh"))
    if kind in ("bce", "bce-unfused"):
        w.inputs["Y"] = f"rng.integers(0, 2, size={w.shape(last)}) * 1.0"
        w.forward += [f"P = 1 / (1 + np.exp(-{z}))", f"loss = -np.sum(Y * np.log(P) + (1 - Y) * np.log(1 - P)){mean}"]
        w.cached.append("P")
        if kind == "bce":
            return [f"{dz} = (P - Y){scaled}"]
        dp = w.of("P")
        return [f"{dp} = -(Y / P - (1 - Y) / (1 - P)){scaled}", f"{dz} = {dp} * P * (1 - P)"]
    if kind in ("softmax", "labels"):
        axis = 1 if w.rows else 0
        w.forward += [
            f"E = np.exp({z} - np.max({z}, axis={axis}, keepdims=True))",
            f"P = E / np.sum(E, axis={axis}, keepdims=True)",
        ]
        w.cached.append("P")
        if kind == "softmax":
            eye = f"np.eye({last})[rng.integers(0, {last}, size=n)]"
            w.inputs["Y"] = eye if w.rows else f"{eye}.T.copy()"
            w.forward.append(f"loss = -np.sum(Y * np.log(P)){mean}")
            return [f"{dz} = (P - Y){scaled}"]
        w.inputs["y"] = f"rng.integers(0, {last}, size=n)"
        index = "np.arange(m), y" if w.rows else "y, np.arange(m)"
        w.forward.append(f"loss = -np.sum(np.log(P[{index}])){mean}")
        lines = [f"{dz} = P.copy()", f"{dz}[{index}] -= 1"]
        return [*lines, f"{dz} /= m"] if scaled else lines
    w.inputs["Y"] = f"rng.normal(size={w.shape(last)})"
    if kind == "logcosh":
        w.forward.append(f"loss = np.sum(np.log(np.cosh({z} - Y))){mean}")
        return [f"{dz} = np.tanh({z} - Y){scaled}"]
    output = {"mse": z, "mse-sigmoid": "P", "mse-tanh": "P"}[kind]
    if output == "P":
        w.forward.append(f"P = 1 / (1 + np.exp(-{z}))" if kind == "mse-sigmoid" else f"P = np.tanh({z})")
        w.cached.append("P")
    half = w.choose.random() < 0.5
    w.forward.append(f"loss = {'0.5 * ' if half else ''}np.sum(({output} - Y) ** 2){mean}")
    derivative = {"mse": "", "mse-sigmoid": " * P * (1 - P)", "mse-tanh": " * (1 - P**2)"}[kind]
    return [f"{dz} = {'' if half else '2 * '}({output} - Y){derivative}{scaled}"]


# --- the text


def _assembled(w: Writer, seed: int, penalty: str | None) -> str:
    """The two functions, in one of several containers, and the declarations."""
    container = w.choose.choice(("flat", "flat", "dicts", "params"))
    result = w.choose.choice(("dict", "dict", "tuple"))
    parameters = [name for name in w.inputs if name[0] in "Wb" and name[1:].isdigit()]
    data = [name for name in w.inputs if name not in parameters]
    cached = list(dict.fromkeys(w.cached))
    nested = container != "flat"
    arguments = ", ".join([*data, "params"] if nested else [*data, *parameters])
    unpack = [f'{name} = params["{name}"]' for name in parameters] if nested else []
    if container == "dicts":
        give = "{" + ", ".join(f'"{name}": {name}' for name in cached) + "}"
        take = [f'{name} = cache["{name}"]' for name in cached]
    else:
        give = "(" + ", ".join(cached) + ("," if len(cached) == 1 else "") + ")"
        take = [", ".join(cached) + ("," if len(cached) == 1 else "") + " = cache"]
    count = next(line for line in w.forward if line.startswith("m = "))
    forward = [*unpack, *w.forward, f"return loss, {give}"]
    if result == "tuple":
        returned = ", ".join(w.gradients)
        declared = repr(tuple(_path(name, nested) for name in w.gradients.values()))
    else:
        plain = w.choose.random() < 0.5
        keys = {name: of if plain else name for name, of in w.gradients.items()}
        returned = "{" + ", ".join(f'"{keys[name]}": {name}' for name in w.gradients) + "}"
        declared = repr({keys[name]: _path(of, nested) for name, of in w.gradients.items()})
    backward = [count, *take, *unpack, *w.backward, f"return {returned}"]
    body = "import numpy as np\n\n\n"
    if any("sigmoid(" in line for line in forward + backward):
        body += SIGMOID
    body += f"def forward({arguments}):\n" + _indented(forward) + "\n\n"
    body += f"def backward({arguments}, cache):\n" + _indented(backward) + "\n\n"
    return f'"""Random network {seed}."""\n\n' + body + _declarations(w, declared, parameters, data, nested, penalty)


def _path(name: str, nested: bool) -> str:
    return f"params['{name}']" if nested and name != "X" else name


def _indented(lines: list[str]) -> str:
    return "".join(f"    {line}\n" for line in lines)


def _declarations(
    w: Writer, gradients: str, parameters: list[str], data: list[str], nested: bool, penalty: str | None
) -> str:
    size = w.choose.choice([p for p in (5, 7, 11, 13, 17) if p not in w.sizes] or [19])
    lines = [f"    inputs[{name!r}] = {text}\n" for name, text in w.inputs.items()]
    collected = (
        f"    params = {{name: inputs[name] for name in {parameters!r}}}\n"
        f"    return {{name: inputs[name] for name in {data!r}}} | {{'params': params}}\n"
        if nested
        else "    return inputs\n"
    )
    weights = tuple(name for name in parameters if name[0] == "W")
    biases = tuple(name for name, of in w.gradients.items() if of[0] == "b")
    pattern = "|".join(sorted({w.of(name) for name in (*w.cached, *w.gradients.values())}))
    factor = "2 * " if penalty == "decay" else ""
    terms = tuple(f"{factor}decay * {name}" for name in weights) if penalty else ()
    divisors = {} if w.mean == "sum" else {"/ m": ("/ X.shape[1]" if w.rows else "/ X.shape[0]", "/ X.size")}
    return (
        f"{MARKER}\n\n"
        'PAIR = ("forward", "backward")\n'
        f"GRADIENTS = {gradients}\n"
        f"GRADIENT_NAMES = {pattern!r}\n"
        f"WEIGHTS = {weights!r}\n"
        f"BIASES = {biases!r}\n"
        f"REGULARISER = {terms!r}\n"
        f"DIVISORS = {divisors!r}\n\n\n"
        "def make_inputs(rng):\n"
        f"    n, inputs = {size}, {{}}\n" + "".join(lines) + collected
    )


def random_network(seed: int) -> Network:
    """A random correct network."""
    return parsed(f"random-{seed}", write(seed))
