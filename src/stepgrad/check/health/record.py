"""What is recorded of a training run: everything that verdicts and reports read, and nothing else.

Plain numbers and tuples in frozen dataclasses, which `saving` turns into JSON and back. Steps and epochs
are counted from 1. None stands for what was not measured or does not apply; NaN and Inf for what was
measured and is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

VERSION = 1
"""Of the format; counted up whenever the meaning of a field changes."""


# --- the network


@dataclass(frozen=True)
class Expected:
    """What initialisation theory predicts for a layer of this network, before the first step.

    Computed by the recursion of He et al. (2015, equations 10 and 14) and Glorot and Bengio (2010), with the
    second moments of this network's own weights and activations, not those of an ideal initialisation.

    Attributes:
        output_rms: root mean square of the layer's output (before its activation), for this run's inputs.
        activation_rms: the same after its activation.
        gain: how many times larger (root mean square) the gradient of the output of the layer before is than that
            of this layer's output; None where there is none, or where other paths lead from one to the other.
            1 is what a good initialisation is after.
        ideal_weight_std: of weights that would keep the size of the signal: Glorot's or He's, whichever
            belongs to the activation.
    """

    output_rms: float
    activation_rms: float
    gain: float | None
    ideal_weight_std: float | None


@dataclass(frozen=True)
class Layer:
    """A layer: a module that holds parameters of its own, with the activation that reads its output.

    Attributes:
        name: the module's path, such as "0" or "body.2"; for a plain function, the parameter's name.
        kind: the module's class, such as "Linear".
        place: the user's line that computes it, as `net.py:12: Z1 = x @ W1`; empty where there is none.
        activation: what follows: the op ("relu", "tanh"); for one composed of several ops, the known function
            that it equals, or those ops ("multiply of tanh"). None if nothing elementwise follows.
        before: the name of the layer whose output leads here; the last of them, if there are several; None
            for the first layer.
        fan_in, fan_out: of its weight; None where it has no weight with two axes or more.
        units: length of its output's last axis.
        parameters: the paths of its parameters.
        weight_std: standard deviation of the weight's initial values.
        expected: what theory predicts; None where it says nothing (no weight, or a norm layer).
    """

    name: str
    kind: str
    place: str
    activation: str | None
    before: str | None
    fan_in: int | None
    fan_out: int | None
    units: int
    parameters: tuple[str, ...]
    weight_std: float | None
    expected: Expected | None


@dataclass(frozen=True)
class ParameterInfo:
    """A parameter, and whether training reaches it.

    Attributes:
        name: its path.
        layer: the name of its layer, or None.
        shape: lengths of its axes.
        dtype: "float32", say.
        status: "trained"; "frozen": the optimizer does not have it; "unused": the loss is computed without it;
            "disconnected": the loss is computed with it, but no gradient gets there.
        cut: for a disconnected one, what cuts the path, with the line.
        initial_mean, initial_std: of its initial values.
    """

    name: str
    layer: str | None
    shape: tuple[int, ...]
    dtype: str
    status: str
    cut: str
    initial_mean: float
    initial_std: float

    @property
    def size(self) -> int:
        return math.prod(self.shape)


# --- the data and the settings


@dataclass(frozen=True)
class Data:
    """The training data, looked at once (all rows in `sg.fit`; by hand, the rows of the first steps).

    Attributes:
        rows: how many were looked at.
        mean, std, low, high: of each input feature (the first 4096 of a row, laid end to end); empty where
            inputs are indices.
        target_kind: "labels" or "numbers".
        classes: outputs that stand for classes, if targets are labels.
        counts: how often each label 0, 1, … occurs; for labels 0 and 1 in floating point as well. Empty otherwise.
        target_mean, target_std, target_low, target_high: over all targets.
        repeats: share of neighbouring rows, in the order in which they came, that have the same label;
            in shuffled data this is about the sum of the squared shares of the classes.
        identical_rows: share of rows whose inputs occur more than once.
    """

    rows: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    target_kind: str
    classes: int | None
    counts: tuple[int, ...]
    target_mean: float
    target_std: float
    target_low: float
    target_high: float
    repeats: float | None
    identical_rows: float | None


@dataclass(frozen=True)
class Settings:
    """How it is trained.

    Attributes:
        model: the printed network.
        loss: the name of the loss function.
        loss_ops: the ops of the tape that are losses or their parts: "cross_entropy", "softmax", …
        optimizer: its class, such as "Adam".
        options: its settings: "eps", "weight_decay", "beta1", "beta2", "momentum", …
        learning_rate: at the beginning.
        batch_size, epochs, steps_per_epoch, rows: None where a loop of the user's own does not say.
        compiled: whether statistics are computed in a compiled program.
        last_op: the op that computes the model's output ("softmax", "sigmoid", "add", …).
    """

    model: str
    loss: str
    loss_ops: tuple[str, ...]
    optimizer: str
    options: dict[str, float]
    learning_rate: float
    batch_size: int | None
    epochs: int | None
    steps_per_epoch: int | None
    rows: int | None
    compiled: bool
    last_op: str


# --- a sampled step


@dataclass(frozen=True)
class LayerSample:
    """A layer in one sampled step; "output" is before its activation, "activation" after it.

    A layer without an activation has the same numbers for both.

    Attributes:
        mean, std: of the output.
        activation_mean, activation_std, activation_rms: of the activation.
        zeros: share of the activation's elements that are exactly 0.
        saturated: share of the activation's elements where its derivative is below 1/20 of its largest value;
            None unless the activation is flat on both ends (tanh, sigmoid). For relu and its like see `active`.
        active: for each unit, on how many rows of the batch (times other axes) the activation's derivative is at
            least 1/1000 of its largest value. For relu that is: on how many it is not 0. Without activation:
            on how many the output is not 0.
        saturated_units: how many units are saturated on every row; None as above.
        positions: how many values each unit has: rows of the batch, times other axes.
        spread_units: how many units have the same value (to 1e-6 of their size) on every row: they say nothing.
        gradient_norm: of the loss with respect to the output.
        gradient_rms: the same, per element.
        gradient_zeros: share of exact zeros in it.
        gain: the gradient_rms of the layer before (`Layer.before`), over this one's; None for the first layer.
            The gradient shrinks on its way back through this layer where this is below 1.
        nonfinite: elements of output and activation that are NaN or infinite.
        gradient_nonfinite: elements of the gradient that are.
    """

    mean: float
    std: float
    activation_mean: float
    activation_std: float
    activation_rms: float
    zeros: float
    saturated: float | None
    active: tuple[int, ...]
    saturated_units: int | None
    positions: int
    spread_units: int
    gradient_norm: float
    gradient_rms: float
    gradient_zeros: float
    gain: float | None
    nonfinite: int
    gradient_nonfinite: int


@dataclass(frozen=True)
class ParameterSample:
    """A parameter in one sampled step; values from before the update.

    Attributes:
        norm: of its values.
        largest: the largest magnitude among them.
        gradient_norm, gradient_mean, gradient_max: of its gradient as backpropagation computed it; `gradient_max`
            is the largest magnitude.
        gradient_zeros: share of exact zeros in the gradient.
        update_norm: of what the step changed.
        ratio: update_norm / norm; None if its values are all 0.
        nonfinite, gradient_nonfinite: elements that are NaN or infinite.
        below_epsilon: share of elements where Adam's √v̂ is smaller than its epsilon, after the update and
            not counting elements whose v is exactly 0; None for other optimizers.
    """

    norm: float
    largest: float
    gradient_norm: float
    gradient_mean: float
    gradient_max: float
    gradient_zeros: float
    update_norm: float
    ratio: float | None
    nonfinite: int
    gradient_nonfinite: int
    below_epsilon: float | None


@dataclass(frozen=True)
class Noise:
    """The gradient's noise scale (McCandlish et al. 2018, appendix A.1), from the two halves of a batch.

    With G the mean gradient of a batch of B rows and G_h that of a half:
    |G|² estimate = 2|G|² - mean |G_h|²,  trace estimate = B · (mean |G_h|² - |G|²).
    Single estimates are very noisy, and may be negative: average both over samples, and then divide
    (`Run.noise_scale`).

    Attributes:
        squared_norm: unbiased estimate of the squared norm of the true gradient.
        trace: unbiased estimate of the trace of the covariance of one row's gradient.
        cosine: between the gradients of the halves.
    """

    squared_norm: float
    trace: float
    cosine: float


@dataclass(frozen=True)
class Outputs:
    """What the model answered in a sampled step.

    Attributes:
        mean, std, low, high: of all outputs.
        row_std: standard deviation over the rows, averaged over outputs: 0 for constant predictions.
        predicted: how often each class was predicted (the largest output; for a single output against
            targets 0 and 1, its sign, or its half if it is a probability); empty where targets are numbers.
        labels: how often each class occurs in this batch's targets; empty where targets are numbers.
        target_mean, target_std, target_low, target_high: of this batch's targets.
        input_mean, input_std, input_largest: of this batch's inputs; NaN where inputs are indices.
    """

    mean: float
    std: float
    low: float
    high: float
    row_std: float
    predicted: tuple[int, ...]
    labels: tuple[int, ...]
    target_mean: float
    target_std: float
    target_low: float
    target_high: float
    input_mean: float
    input_std: float
    input_largest: float


@dataclass(frozen=True)
class Clipping:
    """Gradients against what the optimizer was given, where a loop clips them; None is recorded where it doesn't.

    Attributes:
        norm: of all gradients together, before.
        factor: what they were multiplied with; 1 where they were left as they are.
    """

    norm: float
    factor: float


@dataclass(frozen=True)
class LossPart:
    """One of the terms that the loss function adds up.

    Attributes:
        text: the user's line that computes it, or its ops.
        value: of the term as it is added, with its factor.
        penalty: it depends on parameters only, and not on the batch: a regulariser.
    """

    text: str
    value: float
    penalty: bool


@dataclass(frozen=True)
class Sample:
    """One sampled step. `layers` and `parameters` are in the order of `Run.layers` and `Run.parameters`.

    Attributes:
        step, epoch: which.
        loss: of the batch, before the update.
        learning_rate: of the update.
        batch_size: rows of the batch.
        gradient_norm: of all parameters together.
        update_norm: of all updates together.
        weight_norm: of all parameters together.
        layers, parameters: one for each.
        outputs: None where the model returns no single array.
        noise: None where it was not estimated.
        clipping: None where nothing is clipped.
        penalty: the optimizer's L2 penalty, weight_decay / 2 · |parameters|², which is not part of `loss`
            (for AdamW and the like, what a penalty of its strength would be). 0 without weight decay.
        decay_norm: norm of the penalty's gradient, weight_decay · parameters; compare with gradient_norm.
        loss_parts: the terms that the loss function adds up; empty unless there are two or more.
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    batch_size: int
    gradient_norm: float
    update_norm: float
    weight_norm: float
    layers: tuple[LayerSample, ...]
    parameters: tuple[ParameterSample, ...]
    outputs: Outputs | None
    noise: Noise | None
    clipping: Clipping | None
    penalty: float
    decay_norm: float
    loss_parts: tuple[LossPart, ...] = ()


# --- the three questions


@dataclass(frozen=True)
class GradientCheck:
    """Question 1: are the gradients right? The model's own, on a real batch, in float64, along random directions.

    Attributes:
        step: before which step.
        ok: every compared parameter agrees.
        tolerance: the largest relative error that counts as agreement.
        errors: parameter -> relative error of its gradient's slope along a random direction against the
            numerical one; parameters at a kink, where there is none, are left out.
        kinks: how many parameters were left out.
        first_wrong: the first equation whose own rule is wrong, with its line; empty if none is.
        problem: why it could not be checked; empty if it was.
    """

    step: int
    ok: bool
    tolerance: float
    errors: dict[str, float]
    kinks: int
    first_wrong: str
    problem: str


@dataclass(frozen=True)
class Descent:
    """Question 3: does the loss fall along the update as the gradient predicts, on the batch it was made from?

    The loss is evaluated at parameters + factor · update, in float64, with the same randomness.

    Attributes:
        step: which.
        loss: at factor 0.
        predicted: gradient · update, the change of the loss to first order; negative for a descent direction.
        actual: the change of the loss at factor 1.
        best_factor: the factor with the least loss among those tried: above 1 the step could be longer,
            below 1 it overshoots; 0 if no step along the update lowers the loss.
        best_loss: at that factor.
        factors, losses: the points tried, ascending, 0 and 1 among them.
        cosine: between the update and the negative gradient.
        curvature: update · Hessian · update / |update|², by differences.
        next_batch_change: change of the loss at factor 1 on a batch not used for the update; None if there was none.
    """

    step: int
    loss: float
    predicted: float
    actual: float
    best_factor: float
    best_loss: float
    factors: tuple[float, ...]
    losses: tuple[float, ...]
    cosine: float
    curvature: float
    next_batch_change: float | None


# --- the course of the run


@dataclass(frozen=True)
class EpochRecord:
    """The end of an epoch.

    Attributes:
        epoch, step: which epoch, and its last step.
        loss: mean over the epoch's rows.
        validation_loss: after it; None without validation data.
        metrics, validation_metrics: name -> value.
    """

    epoch: int
    step: int
    loss: float
    validation_loss: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    validation_metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """How the run broke.

    Attributes:
        step, epoch: the step whose loss was not finite, or which raised.
        loss: that loss; None where the step raised.
        error: the message.
        first_cause: where the first NaN or Inf was born, as text; empty where it was not found.
        cause: the same, as names and values ("op", "line", "phase", "kind", …).
        replayed: how many steps were done again from the last good state to get there.
    """

    step: int
    epoch: int
    loss: float | None
    error: str
    first_cause: str
    cause: dict[str, str]
    replayed: int


@dataclass(frozen=True)
class Run:
    """A recorded training run.

    Attributes:
        version: of the format.
        settings, data: how and on what; `data` is None until a step has been seen.
        layers: in the order of the forward pass.
        parameters: in the order of `model.parameters()`.
        losses: of every step, in order; the last may be NaN or infinite.
        samples: the sampled steps, in order.
        epochs: those completed.
        gradient_checks: question 1, once or more.
        descents: question 3, on a few steps.
        failure: how it broke, if it did.
        initial_loss_expected: what an untrained network of this kind should start with (log of the number of
            classes for cross entropy); None where that is not known.
        seconds: how long it trained.
        overhead: share of the time that recording took; None where it was not measured.
        problem: why looking stopped before the run did; empty if it didn't.
    """

    version: int
    settings: Settings
    data: Data | None
    layers: tuple[Layer, ...]
    parameters: tuple[ParameterInfo, ...]
    losses: tuple[float, ...]
    samples: tuple[Sample, ...]
    epochs: tuple[EpochRecord, ...]
    gradient_checks: tuple[GradientCheck, ...]
    descents: tuple[Descent, ...]
    failure: Failure | None
    initial_loss_expected: float | None
    seconds: float
    overhead: float | None
    problem: str = ""

    def layer_course(self, name: str) -> Iterator[tuple[Sample, LayerSample]]:
        """A layer over the sampled steps.

        Args:
            name: the layer's.
        """
        position = [layer.name for layer in self.layers].index(name)
        return ((sample, sample.layers[position]) for sample in self.samples)

    def parameter_course(self, name: str) -> Iterator[tuple[Sample, ParameterSample]]:
        """A parameter over the sampled steps.

        Args:
            name: its path.
        """
        position = [parameter.name for parameter in self.parameters].index(name)
        return ((sample, sample.parameters[position]) for sample in self.samples)

    def noise_scale(self, samples: Sequence[Sample] | None = None) -> float | None:
        """Rows of a batch at which noise and gradient are of equal size: mean trace / mean squared norm.

        Args:
            samples: over which to average; by default over all.

        Returns:
            Infinity where the gradient can't be told from noise; None where nothing was estimated.
        """
        found = [s.noise for s in (self.samples if samples is None else samples) if s.noise is not None]
        found = [n for n in found if math.isfinite(n.squared_norm) and math.isfinite(n.trace)]
        if not found:
            return None
        squared_norm, trace = sum(n.squared_norm for n in found), sum(n.trace for n in found)
        return max(trace, 0.0) / squared_norm if squared_norm > 0 else math.inf


def silent_units(samples: Sequence[LayerSample]) -> tuple[int, ...]:
    """The units (by number) that were exactly 0 on every row of all these samples of one layer."""
    if not samples:
        return ()
    return tuple(unit for unit, counts in enumerate(zip(*(s.active for s in samples), strict=True)) if not any(counts))
