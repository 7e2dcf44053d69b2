"""Random programs: data that is interpreted as a step over inputs and cells, so that any executor can run it.

A program is a list of moves, each an op's name and a few numbers that choose operands, axes and the like
from whatever is there. Every list of moves means something, so what is found to fail can be made smaller
by leaving moves out.
"""

from programs import elementwise, layers, layouts, reductions, rules, steps
from programs.program import Move, Program
from programs.running import MOVES, PICKS

__all__ = ["MOVES", "PICKS", "Move", "Program", "elementwise", "layers", "layouts", "reductions", "rules", "steps"]
