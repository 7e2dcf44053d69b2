"""The cache: which forward values the backward pass will read. Derived from the local rules, never declared."""

from __future__ import annotations

from typing import Any

from stepgrad.errors import AbstractValueError
from stepgrad.tape.equation import INPUT, Equation
from stepgrad.tape.op import OUTPUT, Op, Signature, TensorType
from stepgrad.tensor import Tensor


def reads_of(op: Op, types: tuple[TensorType, ...], params: dict[str, Any], signature: Signature) -> Any:
    """For each operand, the positions of the values its local rule reads (and OUTPUT for the output).

    The rule is recorded once abstractly, on tensors without values; what its equations take as
    inputs is what it reads. Remembered on the signature.
    """
    from stepgrad.tape.recording import recording

    found: list[tuple[int, ...]] = []
    everything = (*range(len(types)), OUTPUT)
    for operand in range(len(types)):
        if operand not in signature.flows:
            found.append(())
            continue
        stand_ins = [Equation(INPUT, (), {}, t, t.is_float) for t in types]
        output = Equation(INPUT, (), {}, signature.type, True)
        downstream = Equation(INPUT, (), {}, signature.type, True)
        rule = op.rule(operand)
        assert rule is not None
        with recording(equations=[], of=None, observe=None, region=None, masks=None) as state:
            try:
                upstream = rule(
                    Tensor(None, downstream), Tensor(None, output), *[Tensor(None, e) for e in stand_ins], **params
                )
            except AbstractValueError:  # a custom rule that looks at values
                found.append(everything)
                continue
            assert state.equations is not None
            recorded = state.equations
        read = {upstream.equation, *(source for e in recorded for source in e.inputs)}
        positions = [i for i, e in enumerate(stand_ins) if e in read]
        found.append((*positions, OUTPUT) if output in read else tuple(positions))
    signature.reads = tuple(found)
    return signature.reads
