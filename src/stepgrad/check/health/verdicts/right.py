"""Is the gradient what backpropagation should compute?"""

from __future__ import annotations

import math

from stepgrad.check.health.record import GradientCheck, Run
from stepgrad.check.health.verdicts.entry import Entry, Evidence, Finding, Question, Severity, Threshold, number

DISAGREES = Threshold(
    "relative error of the slope along a random direction, in float64",
    1e-5,
    True,
    "central differences in float64 resolve about 1e-9; what was recorded with another tolerance is judged by that",
)


def wrong_gradient(run: Run) -> Finding | None:
    wrong = [(c, _wrong(c)) for c in run.gradient_checks if not c.problem and not c.ok]
    wrong = [(c, bad) for c, bad in wrong if bad or c.first_wrong]
    if not wrong:
        return None
    check, bad = wrong[0]
    worst = max(bad, key=lambda name: bad[name], default=None)
    return Finding(
        _says(check, bad, worst),
        tuple(Evidence(f"relative error of d{name}", e, _limit(check)) for name, e in list(bad.items())[:6]),
        _remedy(check),
        layer=worst,
        since=check.step,
        until=wrong[-1][0].step,
    )


def _wrong(check: GradientCheck) -> dict[str, float]:
    """Parameter -> error, of those that disagree; a gradient that is not finite is another matter."""
    return {name: error for name, error in check.errors.items() if check.tolerance < error < math.inf}


def _limit(check: GradientCheck) -> Threshold:
    return Threshold(DISAGREES.what, check.tolerance, True, DISAGREES.reason)


def _says(check: GradientCheck, bad: dict[str, float], worst: str | None) -> str:
    of = f"{len(bad)} of {len(check.errors)} parameters" if len(check.errors) > 1 else "the parameter"
    largest = "" if worst is None else f", most for {worst} (relative error {number(bad[worst])})"
    return f"the gradients of {of} do not agree with differences of the loss{largest}"


def _remedy(check: GradientCheck) -> str:
    if check.first_wrong:
        return f"correct the local rule at {check.first_wrong}; sg.check_gradients(loss, …) shows what it should be"
    return (
        "every local rule is right, so a path is missing or counted twice: look for a custom rule that uses a "
        "tensor which is not its operand, or for gradients that are changed between backward and step"
    )


WRONG_GRADIENT = Entry(
    name="wrong-gradient",
    family="right or wrong",
    question=Question.RIGHT,
    severity=Severity.BLOCK,
    meaning="Backpropagation computes another gradient than the loss has. The optimizer then goes in a wrong "
    "direction, and nothing else in the report means much before this is corrected. A network with a wrong "
    "gradient may well learn a little: that makes it so hard to notice.",
    reads="On a real batch, in float64, the slope of the loss along a random direction for each parameter: by "
    "backpropagation, and by differences of the loss.",
    thresholds=(DISAGREES,),
    remedy="Correct the rule that the report names. `sg.check_gradients` and `sg.check_backward` find its line.",
    causes=(),
    judge=wrong_gradient,
    example="""\
import numpy as np
import stepgrad as sg

X = np.random.default_rng(0).standard_normal((256, 8), dtype=np.float32)
y = (X[:, :1] > X[:, 1:2]).astype(np.float32)


@sg.custom_rule
def swish(x):
    return x * sg.sigmoid(x)


@swish.backward
def _(downstream, out, x):
    return downstream * sg.sigmoid(x)  # forgets that sigmoid(x) depends on x, too


class Net(sg.nn.Module):
    def __init__(self):
        self.first = sg.nn.Linear(8, 16, key=0)
        self.last = sg.nn.Linear(16, 1, key=1)

    def forward(self, x):
        return self.last(swish(self.first(x)))


model, loss = Net(), sg.losses.binary_cross_entropy
optimizer = sg.optim.Adam(model.parameters(), lr=0.01)
health = sg.health(model, loss, optimizer, every=2)
sg.fit(model, loss, optimizer, (X, y), epochs=5, callbacks=[health], progress=False)
print(health.report())
""",
    cure=(
        (
            "downstream * sg.sigmoid(x)  # forgets that sigmoid(x) depends on x, too",
            "downstream * (sg.sigmoid(x) + out * (1 - sg.sigmoid(x)))",
        ),
    ),
)
