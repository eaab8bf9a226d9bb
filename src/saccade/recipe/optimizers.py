"""Optimizers by name: which there are, and the learning rate of each where `train.lr` is "auto".

Five are our own; all others are those of `timm.optim`, with or without "timm/" before them. No optimizer is
imported here, so that a recipe is read without torch.
"""

from __future__ import annotations

import difflib
from typing import NamedTuple

from saccade.recipe.fields import Refusal

OWN = ("adam", "adamw", "sgd", "rmsprop", "muon")
TIMM = "timm/"


class Rates(NamedTuple):
    """Learning rates from scratch, and of a head alone on a frozen base, which bears a higher one."""

    scratch: float
    head: float


# Measured: docs/optimisation.md.
_FAMILIES = (
    (
        Rates(1e-3, 3e-3),
        """adam adamw adamwlegacy adamc adamp nadam nadamlegacy nadamw nadamc radam radamlegacy radamw adamax
        adopt adoptw adoptc adabelief radabelief laprop lapropc adan adanw mars adafactorbv adafactorbvc
        cadafactorbv cadafactorbvc cadamc cadamp cadamw cadan cadanw cadopt cadoptc cadoptw claprop cmars
        cnadamc cnadamw timm/muon nmuon adamuon nadamuon""",
    ),
    # the sign of a momentum: a tenth of AdamW's rate (Chen et al. 2023, "Lion")
    (Rates(1e-4, 3e-4), "lion lionc clion clionc"),
    # momentum 0.9 makes ten times of each step
    (Rates(1e-4, 3e-4), "rmsprop rmsproptf rmsproptfw rmsproptfc crmsproptf"),
    # steps are shares of a layer's length (You et al. 2020, "LAMB")
    (Rates(5e-3, 1.5e-2), "lamb lambc lambw lambcd lambcw clamb clambw"),
    (Rates(1e-2, 3e-2), "adafactor cadafactor adagrad novograd novogradw novogradc"),
    (Rates(2e-3, 6e-3), "madgrad madgradw"),
    (Rates(1.0, 1.0), "adadelta lars larc nlars nlarc"),
    (Rates(0.05, 0.05), "sgd momentum nesterov nesterovw sgdp sgdw sgdc csgdw csgdc csgdp"),
    (Rates(0.24, 0.24), "muon"),
)
RATES: dict[str, Rates] = {name: rates for rates, names in _FAMILIES for name in names.split()}

_NOT_RESUMED = "keeps more than tensors and numbers for each weight, so that a stopped run could not go on"
_OF_GPUS = "comes with packages for GPUs that are not part of saccade"
# beginning of a name in timm -> why it is refused
REFUSED = {
    "adahessian": "needs second derivatives, which a training step does not compute",
    "kron": _NOT_RESUMED,
    "lookahead": _NOT_RESUMED,
    "fused": _OF_GPUS,
    "bnb": _OF_GPUS,
}

# They have a momentum that `train.momentum` sets.
_WITH_MOMENTUM = """sgd rmsprop muon timm/muon nmuon adamuon nadamuon adafactorbv adafactorbvc cadafactorbv
    cadafactorbvc momentum nesterov nesterovw sgdp sgdw sgdc csgdw csgdc csgdp lars larc nlars nlarc madgrad
    madgradw rmsproptf rmsproptfw rmsproptfc crmsproptf"""
WITH_MOMENTUM = frozenset(_WITH_MOMENTUM.split())


def optimizer_name(text: str) -> str:
    """The name as saccade spells it; a Refusal for one that there is not, or that cannot be continued.

    >>> optimizer_name("timm/lamb"), optimizer_name("Lion"), optimizer_name("timm/muon")
    ('lamb', 'lion', 'timm/muon')
    """
    bare = text.strip().lower().removeprefix(TIMM)
    name = text.strip().lower() if bare in OWN else bare
    name = bare if name not in RATES else name  # timm/adamw is torch's, as ours is
    for beginning, why in REFUSED.items():
        if bare.startswith(beginning):
            raise Refusal(
                f"train.optimizer = {text}: it {why}", hint="use adamw, or another optimizer of timm.optim"
            )
    if name not in RATES:
        close = difflib.get_close_matches(name, RATES, n=1)
        known = f"did you mean {close[0]!r}?" if close else f"usual are {', '.join(OWN)}, lamb, lion, nadamw"
        raise Refusal(f"train.optimizer names no optimizer: {text!r}", hint=known)
    return name
