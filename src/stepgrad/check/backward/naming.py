"""The names people give: which gradient belongs to which input, and what a parameter of a backward means."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping

FORWARDS = (
    "forward forward_pass forward_prop forward_propagation forward_propagate feedforward feed_forward fprop __call__"
).split()
BACKWARDS = (
    "backward backward_pass backward_prop backward_propagation backward_propagate backprop back_prop "
    "backpropagation back_propagation backpropagate bprop"
).split()
LOSSES = (
    "loss compute_loss calculate_loss calc_loss loss_function loss_fn get_loss "
    "cost compute_cost calculate_cost calc_cost cost_function cost_fn get_cost criterion objective"
).split()
RESETS = "zero_grad zero_grads zero_gradients reset_grad reset_grads reset_gradients clear_grad clear_grads".split()

DOWNSTREAM = re.compile(
    r"d|g|d[A-Z]\w*|d_\w+|d(out|a|z|h|y|x|output|upstream|loss|l|prev|top|value)s?|grads?|grad_?\w*|\w*_grads?|\w*gradients?"
    r"|delta\w*|(up|down)stream\w*|\w*_error|error|err|top_diff|eps(ilon)?_next|dvalues|cotangent"
)
CONTEXT = re.compile(
    r"\w*caches?\w*|ctx|context|saved\w*|memory|residuals?|intermediates?|tape|store|history|activations"
)
OUTPUT = re.compile(
    r"out(put)?s?|[AO]\d*|o|AL|A_?(last|out)|y_?(hat|pred|p|prob|out|bar)s?|Y_?(hat|pred|p|prob)s?|yhat|Yhat"
    r"|pred(s|iction|ictions|icted)?|prob(s|abilities)?|scores|logits|p"
)
DATA = re.compile(r"[xXaA]\d?|inputs?|data|batch|images?|features|X_?(train|batch)|x_?(train|batch)")
RATE = re.compile(r"lr|learning_?rate|eta|alpha|step_?size")

PARAMETER = re.compile(
    r"(?!\w*(decay|reg|scale|size|rate|init|std|eps|mask|prob|shape))"
    r"(W|w|b|U|u|V|emb(ed)?(ding)?s?|weights?|bias(es)?|kernels?|theta|gamma|beta)(_\w+|[a-z]{0,2}\d*)(\[\d+\])?"
)

HOLDER = re.compile(r"param|weight|net|model|theta", re.IGNORECASE)
"""How the name begins of what holds all parameters, where there is one such thing."""

_CONTAINERS = re.compile(
    r"_?(params?|parameters?|grads?|gradients?|d_?params?|state|variables|trainable\w*|theta|learnable\w*)",
    re.IGNORECASE,
)
_HOLDS = {"value", "data", "val", "grad", "gradient", "g", "w_grad"}
_PREFIXES = [
    re.compile(prefix + r"(?=\w)")
    for prefix in (
        r"_?d[A-Za-z]+_d_?",  # dL_dW, dj_dw
        r"(?:delta_?|del_|nabla_?|partial_|_?gradients?_?(?:of_)?|_?grads?_?(?:of_)?)",
        r"(?:_?d[LJECl]?d?_?|g_|g(?=[A-Z]|[a-z]{1,2}\d*$))",
    )
]
_SUFFIX = re.compile(r"_?(?:grads?|gradients?|nabla|bar|error|deriv(?:ative)?|delta)_?$", re.IGNORECASE)
_SYNONYMS = {
    **dict.fromkeys(("w", "ws", "weight", "weights", "kernel", "wt", "wts"), "w"),
    **dict.fromkeys(("b", "bs", "bias", "biases"), "b"),
    **dict.fromkeys(("x", "xs", "input", "inputs", "a_prev", "x_in", "inp"), "x"),
}

Key = tuple[str, ...]


def gradient_roots(name: str) -> list[str]:
    """What a variable with this name may be the gradient of, the likeliest first.

    Example:
        >>> gradient_roots("dW1"), gradient_roots("weights_gradient"), gradient_roots("W1")
        (['W1'], ['weights'], [])
    """
    found = []
    prefix = next((match for pattern in _PREFIXES if (match := pattern.match(name))), None)
    if prefix:
        found += [name[prefix.end() :], *([name[1:].lstrip("_")] if name[0] == "d" else [])]
    suffix = _SUFFIX.search(name)
    if suffix and suffix.start() > 0:
        found.append(name[: suffix.start()])
    if re.fullmatch(r"d\w+", name):
        found.append(name[1:])
    return [root for root in dict.fromkeys(found) if root]


def forward_name(gradient: str) -> tuple[str, ...]:
    """What a variable, attribute or entry may be the gradient of, by its name; itself last.

    Example:
        >>> forward_name("dW2"), forward_name("self.b1_grad"), forward_name("grads['dw']")
        (('W2', 'dW2'), ('b1', 'b1_grad'), ('w', 'dw', "grads['dw']"))
    """
    name = gradient.removeprefix("self.").removesuffix(".append").removesuffix(".insert")
    parts = tokens(name) or [name]
    if len(parts) > 1 and re.fullmatch(r"-?\d+", parts[-1]):  # an entry of a list: nabla_w[-1]
        roots = [form for root in gradient_roots(parts[-2]) for form in (f"{root}[{parts[-1]}]", root)]
    else:
        roots = [*gradient_roots(parts[-1]), *parts[len(parts) - 1 :]]
    return tuple(dict.fromkeys([*(root for root in roots if root != name), name]))


def is_gradient_name(name: str, others: Iterable[str]) -> bool:
    """Whether a name says that it is the gradient of one of the others."""
    known = {_plain(other) for other in others if other != name}
    return any(_plain(root) in known for root in gradient_roots(name))


def is_gradient_container(token: str) -> bool:
    """Whether a variable of this name holds gradients by name or by position."""
    return re.fullmatch(r"_?(grads?|gradients?|d_?params?|d_?weights)", token, re.IGNORECASE) is not None


def tokens(path: str) -> list[str]:
    """The parts of a path.

    Example:
        >>> tokens("self.layers[0].params['W1']")
        ['self', 'layers', '0', 'params', 'W1']
    """
    return [a or b or c for a, b, c in re.findall(r"\[['\"](.*?)['\"]\]|\[(.*?)\]|([^.\[\]]+)", path)]


def matched(gradients: Iterable[str], inputs: Mapping[str, str], *, keyed: bool = False) -> dict[str, str]:
    """Which gradient belongs to which input, by their names.

    Args:
        gradients: paths, as in `self.grads['W1']`, `dW1`, `self.layers[0].dW`, `nabla_b[1]`.
        inputs: every path at which an input is found -> the input.
        keyed: they are the keys of a dict of gradients, where `W1` is the gradient of W1 too.

    Returns:
        Gradient -> input, for those that have one. An input gets one gradient at most.
    """
    found: dict[str, str] = {}
    gradients = list(gradients)
    for plain in (False, True):  # W and w may both be there
        known: dict[Key, str] = {}
        for path, name in inputs.items():
            known.setdefault(_key(tokens(path), plain), name)
        for gradient in gradients:
            if gradient in found:
                continue
            for key in _keys(tokens(gradient), plain, keyed):
                name = known.get(key, "")
                if name and name not in found.values():
                    found[gradient] = name
                    break
    return found


def _keys(parts: list[str], plain: bool, keyed: bool) -> list[Key]:
    """The keys under which a gradient's input may stand: at least one part is named as a gradient."""
    inside = keyed or any(is_gradient_container(p) for p in parts[:-1]) or parts[-1] in _HOLDS
    choices = [[*gradient_roots(p), *([p] if inside or len(parts) > 1 else [])] or [p] for p in parts]
    chosen = map(list, itertools.islice(itertools.product(*choices), 64))
    return [_key(names, plain, parts) for names in chosen if inside or names != parts]


def _key(parts: list[str], plain: bool, named: list[str] | None = None) -> Key:
    named = named or parts
    kept = [
        p
        for i, (p, was) in enumerate(zip(parts, named, strict=True))
        if not (i == 0 and p == "self")
        and not (i < len(parts) - 1 and (_CONTAINERS.fullmatch(p) or _CONTAINERS.fullmatch(was)))
        and not (i == len(parts) - 1 and i > 1 and was in _HOLDS)
    ]
    return tuple(_plain(p) if plain else p for p in kept)


def _plain(name: str) -> str:
    """A name without case and synonyms: weights1, W1 and w_1 are the same."""
    lower = name.lower()
    text = re.match(r"(.*?)_?(\d*)$", lower)
    assert text is not None
    return _SYNONYMS.get(text[1], text[1]) + text[2]
