"""What is trained: each method is a list of phases, and how the training goes through them.

`make_plan` makes the plan of a run from its recipe and network; `METHODS[plan.method].train` carries it out.
"""

from saccade.methods.planning import METHODS, Method, make_plan, phases_of, plan_training

__all__ = ["METHODS", "Method", "make_plan", "phases_of", "plan_training"]
