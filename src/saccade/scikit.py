"""What scikit-learn asks an estimator for. It is imported here alone, and only when it asks.

`ImageClassifier` inherits nothing from scikit-learn, so that `import saccade` and predicting need none.
"""

from __future__ import annotations

import inspect
from typing import Any, Self

from saccade.errors import NotFittedError


class SetByFit:
    """An attribute that `fit` sets on an instance, which then hides this; until then NotFittedError."""

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        what = "has no run folder" if "classes_" in vars(instance) else "is not fitted"
        raise NotFittedError(f"this {owner.__name__} {what}", hint="call fit(...), or load a run folder")


class Estimator:
    """Parameters and tags of a classifier whose `__init__` keeps each argument under its own name.

    Arguments that `__init__` takes as `**fields` are kept in `_fields`.
    """

    _estimator_type = "classifier"  # for scikit-learn before 1.6
    _fields: dict[str, Any]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments, as scikit-learn's `clone` wants them; nothing is nested below `deep`.

        >>> from saccade import ImageClassifier
        >>> ImageClassifier(epochs=3).get_params()["epochs"]
        3
        """
        return {name: getattr(self, name) for name in parameters(type(self))} | self._fields

    def set_params(self, **changes: Any) -> Self:
        """Change constructor arguments; what was fitted stays until the next `fit`.

        >>> from saccade import ImageClassifier
        >>> ImageClassifier(epochs=3).set_params(epochs=5).epochs
        5
        """
        for name, value in changes.items():
            if name in parameters(type(self)):
                setattr(self, name, value)
            else:
                self._fields = {**self._fields, name: value}
        return self

    def set_fit_request(self, *, groups: bool | str | None = True) -> Self:
        """Ask scikit-learn's metadata routing for `groups` in `fit`: True, False, or a name for them.

        >>> from saccade import ImageClassifier
        >>> ImageClassifier().set_fit_request(groups=True).get_metadata_routing().fit.requests
        {'groups': True}
        """
        self._metadata_request = _routing(self, groups)
        return self

    def get_metadata_routing(self) -> Any:
        """Which metadata scikit-learn hands to `fit`, where its metadata routing is on."""
        return self.__dict__.get("_metadata_request") or _routing(self, None)

    def __sklearn_tags__(self) -> Any:
        """Of a classifier of images, which looks at no table of numbers."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=False),  # a folder brings its labels
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, three_d_array=True, string=True),
            no_validation=True,
        )

    def __sklearn_is_fitted__(self) -> bool:
        return "classes_" in self.__dict__


def parameters(estimator: type[Estimator]) -> tuple[str, ...]:
    """Names of the constructor's arguments, without `**fields`."""
    signature = inspect.signature(estimator.__init__).parameters.values()
    return tuple(p.name for p in signature if p.name != "self" and p.kind is not p.VAR_KEYWORD)


def _routing(estimator: Estimator, groups: bool | str | None) -> Any:
    from sklearn.utils.metadata_routing import MetadataRequest

    request = MetadataRequest(owner=estimator)
    request.fit.add_request(param="groups", alias=groups)
    request.score.add_request(param="sample_weight", alias=None)
    return request
