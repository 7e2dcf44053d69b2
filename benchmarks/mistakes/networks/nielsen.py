"""The textbook network: lists of weights and biases, nabla_w and nabla_b, counted from the last layer."""

import numpy as np


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def sigmoid_prime(z):
    return sigmoid(z) * (1 - sigmoid(z))


def cost_derivative(output_activations, y):
    return output_activations - y


def feedforward(x, y, biases, weights):
    activation = x
    activations = [x]
    zs = []
    for b, w in zip(biases, weights):
        z = np.dot(w, activation) + b
        zs.append(z)
        activation = sigmoid(z)
        activations.append(activation)
    loss = 0.5 * np.sum((activations[-1] - y) ** 2)
    return loss, activations, zs


def backprop(x, y, biases, weights, activations, zs):
    nabla_b = [np.zeros(b.shape) for b in biases]
    nabla_w = [np.zeros(w.shape) for w in weights]
    delta = cost_derivative(activations[-1], y) * sigmoid_prime(zs[-1])
    nabla_b[-1] = delta
    nabla_w[-1] = np.dot(delta, activations[-2].transpose())
    for l in range(2, len(weights) + 1):
        z = zs[-l]
        sp = sigmoid_prime(z)
        delta = np.dot(weights[-l + 1].transpose(), delta) * sp
        nabla_b[-l] = delta
        nabla_w[-l] = np.dot(delta, activations[-l - 1].transpose())
    return {"biases": nabla_b, "weights": nabla_w}


# --- what the benchmark knows about it

PAIR = ("feedforward", "backprop")
GRADIENTS = {f"{kind}[{k}]": f"{kind}[{k}]" for kind in ("biases", "weights") for k in range(3)}
GRADIENT_NAMES = r"delta|nabla_.*"
WEIGHTS = ("weights[-l + 1]",)


def make_inputs(rng):
    sizes = (3, 7, 5, 2)
    return {
        "x": rng.normal(size=(3, 1)),
        "y": rng.normal(size=(2, 1)),
        "biases": [rng.normal(size=(size, 1)) for size in sizes[1:]],
        "weights": [rng.normal(size=(after, before)) for before, after in zip(sizes, sizes[1:], strict=False)],
    }


PLANTS = {
    "derivative-twice": [("delta) * sp", "delta) * sp * sp")],
    "half-of-the-loss": [("return output_activations - y", "return 2 * (output_activations - y)")],
    "derivative-dropped-without-fused-loss": [(" * sigmoid_prime(zs[-1])", "")],
    "activation-derivative-missing": [
        ("weights[-l + 1].transpose(), delta) * sp", "weights[-l + 1].transpose(), delta)")
    ],
    "derivative-at-activation": [
        ("sigmoid_prime(zs[-1])", "sigmoid_prime(activations[-1])"),
        ("sp = sigmoid_prime(z)", "sp = sigmoid_prime(activations[-l])"),
    ],
    "derivative-of-preactivation": [
        ("sigmoid_prime(zs[-1])", "zs[-1] * (1 - zs[-1])"),
        ("sp = sigmoid_prime(z)", "sp = z * (1 - z)"),
    ],
    "activation-as-mask": [("sp = sigmoid_prime(z)", "sp = sigmoid(z)")],
    "preactivation-for-activation": [
        ("activations[-2].transpose()", "zs[-2].transpose()"),
        ("cost_derivative(activations[-1], y)", "cost_derivative(zs[-1], y)"),
    ],
    "other-layers-cache": [
        ("z = zs[-l]", "z = zs[-l + 1]"),
        ("activations[-2].transpose()", "activations[-1].transpose()"),
        ("activations[-l - 1].transpose()", "activations[-l].transpose()"),
    ],
    "other-layers-weights": [
        ("weights[-l + 1].transpose()", "weights[-l].transpose()"),
        ("weights[-l + 1].transpose()", "weights[-1].transpose()"),
    ],
    "sign": [("return output_activations - y", "return y - output_activations")],
    "rounded-predictions": [("cost_derivative(activations[-1], y)", "cost_derivative(np.round(activations[-1]), y)")],
    "wrong-order": [
        ("        nabla_b[-l] = delta\n        nabla_w[-l]", "        nabla_b[-l + 1] = delta\n        nabla_w[-l]")
    ],
    "path-forgotten": [("        nabla_b[-l] = delta\n", ""), ("    nabla_b[-1] = delta\n", "")],
    "cache-mutated": [
        ("        sp = sigmoid_prime(z)", "        z *= 0.5\n        sp = sigmoid_prime(z)"),
        ("    nabla_w[-1] = np.dot(", "    activations[-2][:] = 1 - activations[-2]\n    nabla_w[-1] = np.dot("),
    ],
    "forward-disagrees-with-cache": [
        (
            "        zs.append(z)\n        activation = sigmoid(z)",
            "        zs.append(z - b)\n        activation = sigmoid(z)",
        )
    ],
    "clip-mismatch": [
        ("        nabla_b[-l] = delta\n", "        delta = np.clip(delta, -0.01, 0.01)\n        nabla_b[-l] = delta\n")
    ],
}
