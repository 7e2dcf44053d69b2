"""Does training reach every parameter?"""

from __future__ import annotations

from stepgrad.check.health.record import ParameterInfo, Run
from stepgrad.check.health.verdicts.entry import Entry, Evidence, Finding, Question, Severity, Threshold, percent
from stepgrad.check.health.verdicts.reading import named

UNMOVED = Threshold(
    "largest change of the parameter in any sampled step, over its norm",
    0.0,
    False,
    "exactly nothing: a parameter that is trained changes by at least one rounding",
)


def _with(run: Run, status: str) -> list[ParameterInfo]:
    return [p for p in run.parameters if p.status == status]


def _share(run: Run, found: list[ParameterInfo]) -> Evidence:
    whole = sum(p.size for p in run.parameters)
    of_all = sum(p.size for p in found) / whole if whole else 0.0
    return Evidence(
        f"parameters concerned: {', '.join(p.name for p in found[:6])}", f"{percent(of_all)} of all numbers"
    )


def _names(found: list[ParameterInfo]) -> str:
    return named([p.name for p in found]).removeprefix("layers ").removeprefix("layer ")


def unused(run: Run) -> Finding | None:
    found = _with(run, "unused")
    if not found:
        return None
    many = len(found) > 1
    return Finding(
        f"the loss is computed without {_names(found)}: {'their gradients are' if many else 'its gradient is'} zero",
        (_share(run, found),),
        f"call the layer of {found[0].name} in forward, or delete it; an optimizer that decays weights shrinks it to 0",
        layer=found[0].layer or found[0].name,
    )


def frozen(run: Run) -> Finding | None:
    found = _with(run, "frozen")
    stuck = [] if found else _stuck(run)
    if not found and not stuck:
        return None
    shown = found or stuck
    if found:
        says = (
            f"the optimizer does not have {_names(found)}, although the loss depends on {'them' if found[1:] else 'it'}"
        )
        remedy = (
            "make the optimizer from model.parameters(), after every layer is in the model; if it is meant (a layer "
            "trained before), this verdict only confirms it"
        )
    else:
        says = f"{_names(stuck)} had a gradient, and did not change in any sampled step"
        remedy = f"the learning rate is {run.settings.learning_rate:g}: set it, or see what puts the old values back"
    evidence = [_share(run, shown)]
    for p in shown[:3]:
        gradient = max((s.gradient_norm for _, s in run.parameter_course(p.name)), default=0.0)
        evidence.append(Evidence(f"largest norm of d{p.name}", gradient))
        changed = max((s.update_norm for _, s in run.parameter_course(p.name)), default=0.0)
        evidence.append(Evidence(f"largest change of {p.name}", changed, None if found else UNMOVED))
    return Finding(says, tuple(evidence), remedy, layer=shown[0].layer or shown[0].name)


def _stuck(run: Run) -> list[ParameterInfo]:
    """Trained parameters that had a gradient in several steps, and never changed."""
    stuck, rate = [], run.settings.learning_rate
    for p in _with(run, "trained"):
        course = [s for _, s in run.parameter_course(p.name)]
        # A gradient that is lost in rounding is another matter.
        pushed = [s for s in course if s.gradient_norm > 0 and (rate == 0 or rate * s.gradient_norm > 1e-6 * s.norm)]
        if len(pushed) >= 3 and all(s.update_norm <= UNMOVED.value for s in course):
            stuck.append(p)
    return stuck


def disconnected(run: Run) -> Finding | None:
    found = _with(run, "disconnected")
    if not found:
        return None
    cuts = list(dict.fromkeys(p.cut for p in found if p.cut))
    says = f"the loss is computed with {_names(found)}, but no gradient gets there"
    return Finding(
        says + (f": {cuts[0]} cuts the path" if cuts else ""),
        (_share(run, found), *(Evidence("what cuts the path", cut) for cut in cuts[:3])),
        f"take {cuts[0]} out of the path, or put something with a derivative in its place"
        if cuts
        else "look for .numpy(), sg.stop_gradient, argmax, a comparison or a cast to integers on the way to the loss",
        layer=found[0].layer or found[0].name,
    )


_DATA = """\
import contextlib

import numpy as np
import stepgrad as sg

X = np.random.default_rng(0).standard_normal((256, 8), dtype=np.float32)
y = (X[:, 0] > X[:, 1]).astype(int)
"""

_END = """\
health = sg.health(model, loss, optimizer, every=2)
with contextlib.suppress(sg.errors.GradientError):  # fit refuses it
    sg.fit(model, loss, optimizer, (X, y), epochs=5, callbacks=[health], progress=False)
print(health.report())
"""

UNUSED = Entry(
    name="unused-parameters",
    family="parameters",
    question=Question.HEALTHY,
    severity=Severity.HARM,
    meaning="A parameter of the model takes no part in the loss: a layer that forward never calls, or whose result is "
    "thrown away. It keeps its initial values for ever, and the network is smaller than it was meant to be.",
    reads="For each parameter, whether the tape of a training step leads from it to the loss.",
    thresholds=(),
    remedy="Call the layer in forward, or delete it.",
    causes=(),
    judge=unused,
    example=_DATA
    + """

class Net(sg.nn.Module):
    def __init__(self):
        self.first = sg.nn.Linear(8, 16, key=0)
        self.second = sg.nn.Linear(16, 16, key=1)
        self.last = sg.nn.Linear(16, 2, key=2)

    def forward(self, x):
        h = sg.relu(self.first(x))
        return self.last(h)


model, loss = Net(), sg.losses.cross_entropy
optimizer = sg.optim.Adam(model.parameters(), lr=0.01)
"""
    + _END,
    cure=(("        return self.last(h)", "        return self.last(sg.relu(self.second(h)))"),),
)

FROZEN = Entry(
    name="frozen-parameters",
    family="parameters",
    question=Question.HEALTHY,
    severity=Severity.HARM,
    meaning="A parameter gets a gradient, and never changes: the optimizer was made without it (before the layer was "
    "added, or from part of the model), or its learning rate is 0.",
    reads="Which parameters the optimizer has; and for those it has, gradient and change in every sampled step.",
    thresholds=(UNMOVED,),
    remedy="Make the optimizer from `model.parameters()`, once the model is complete.",
    causes=(),
    judge=frozen,
    example=_DATA
    + """
model = sg.nn.Sequential(sg.nn.Linear(8, 16, key=0), sg.nn.ReLU(), sg.nn.Linear(16, 2, key=1))
loss, mine = sg.losses.cross_entropy, model.parameters()
trained = ["2.weight", "2.bias"]
optimizer = sg.optim.Adam({name: mine[name] for name in trained}, lr=0.01)
health = sg.health(model, loss, optimizer, every=2)
for step in range(40):
    rows = np.arange(32) + 32 * (step % 8)
    health.before(X[rows], y[rows])
    value = loss(model(X[rows]), y[rows])
    grads = sg.backward(value, mine)
    optimizer.step({name: grads[name] for name in trained})
    health.after(value)
print(health.report())
""",
    cure=(('trained = ["2.weight", "2.bias"]', "trained = list(mine)"),),
)

DISCONNECTED = Entry(
    name="disconnected-parameters",
    family="parameters",
    question=Question.HEALTHY,
    severity=Severity.BLOCK,
    meaning="The loss is computed with a parameter, and still no gradient reaches it: something on the way has no "
    "derivative, or was taken out of the tape.",
    reads="For each parameter, whether the loss depends on it, and whether the backward walk reaches it; if not, the "
    "place where the path is cut.",
    thresholds=(),
    remedy="Take what cuts the path out of it: `sg.stop_gradient`, `.numpy()`, an integer cast, argmax, a comparison. "
    "`sg.why(loss, parameter)` shows the whole path.",
    causes=(),
    judge=disconnected,
    example=_DATA
    + """

class Net(sg.nn.Module):
    def __init__(self):
        self.first = sg.nn.Linear(8, 16, key=0)
        self.last = sg.nn.Linear(16, 2, key=1)

    def forward(self, x):
        h = self.first(x) > 0
        return self.last(h.astype(np.float32))


model, loss = Net(), sg.losses.cross_entropy
optimizer = sg.optim.Adam(model.parameters(), lr=0.01)
"""
    + _END,
    cure=(("h = self.first(x) > 0", "h = sg.relu(self.first(x))"),),
)
