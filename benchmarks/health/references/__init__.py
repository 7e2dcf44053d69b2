"""The rules of other tools, written anew from their published definitions, with their published thresholds.

Each rule is a function of a `Course` that says whether it alarms; its docstring says where it is defined. No code was
copied. `names` maps a rule to every planted fault that its alarm could be taken to mean: read generously.
"""

from benchmarks.health.references import autotrainer, deepdiagnosis, sagemaker, thedeepchecker
from benchmarks.health.references.rule import Rule, Tool

TOOLS: tuple[Tool, ...] = (sagemaker.TOOL, autotrainer.TOOL, deepdiagnosis.TOOL, thedeepchecker.TOOL)

__all__ = ["TOOLS", "Rule", "Tool"]
