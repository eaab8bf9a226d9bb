"""Whether a model goes by a shortcut: how it answers images on which a trivial property points elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saccade.evaluation.intervals import wilson
from saccade.records import Predictions

# A model that never looks at the property is as good on either kind of image. More points than this apart,
# beyond chance, are not a harder photo here and there.
LEAST_DROP = 0.2
# Where picture and property disagree, a model that uses it goes with the property clearly more often than
# not. Less may be pictures that are hard for both: a file of odd size often shows something odd.
FOLLOWED_SHARE = 0.5
# Fewer images on which the property points elsewhere tell nothing.
LEAST_AGAINST = 5


@dataclass(frozen=True, slots=True)
class ShortcutUse:
    """`alike` images whose property points to their own class, `against` those where it points to another.

    `accuracy` is that of the property alone on all images; `followed` those of `against` for which the model
    named the class of the property. `of_the_file`: the property is none of the picture.
    """

    name: str
    accuracy: float
    alike: int
    alike_right: int
    against: int
    against_right: int
    followed: int
    of_the_file: bool = True

    @property
    def can_be_told(self) -> bool:
        """Whether there are enough images on which the property points elsewhere."""
        return min(self.against, self.alike) >= LEAST_AGAINST

    @property
    def drop(self) -> float:
        """How much lower the accuracy is where the property points elsewhere; 0 where nothing tells."""
        if not self.alike or not self.against:
            return 0.0
        return self.alike_right / self.alike - self.against_right / self.against

    @property
    def leaning(self) -> bool:
        """Whether it is worse, beyond chance, where the property points elsewhere, and errs towards that."""
        if not self.can_be_told:
            return False
        helped, misled = wilson(self.alike_right, self.alike), wilson(self.against_right, self.against)
        towards = self.followed >= FOLLOWED_SHARE * (self.against - self.against_right)
        return towards and helped.low > misled.high and self.drop >= LEAST_DROP

    @property
    def used(self) -> bool:
        """Whether the model goes by the property rather than by the picture, where the two disagree."""
        decided = self.followed + self.against_right
        return self.leaning and decided > 0 and wilson(self.followed, decided).low > FOLLOWED_SHARE


def shortcut_use(
    name: str, guesses: Mapping[str, str], predictions: Predictions, *, accuracy: float, of_the_file: bool
) -> ShortcutUse:
    """How `predictions` go with the class that a property points to, `guesses` by path.

    Images without a guess are left out.
    """
    rows = zip(predictions.paths, predictions.labels, predictions.predicted, strict=True)
    told = [(label, answer, guesses[path]) for path, label, answer in rows if path in guesses]
    alike = [answer == label for label, answer, guess in told if guess == label]
    against = [(answer == label, answer == guess) for label, answer, guess in told if guess != label]
    return ShortcutUse(
        name,
        accuracy,
        len(alike),
        sum(alike),
        len(against),
        sum(right for right, _ in against),
        sum(followed for _, followed in against),
        of_the_file,
    )
