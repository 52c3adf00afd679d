"""A trained run as a scikit-learn classifier."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from metarl.errors import UsageError
from metarl.fewshot.data.encoder import label_codes
from metarl.fewshot.learner import Learner
from metarl.fewshot.loading import load


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Learns a support set by the learner of a run: `fit` adapts, it does not train.

    `run` is the run folder of a learner of vectors. `X` `[n, D]` are raw numbers in the units and the order of the
    training data (`learner.file_encoder.inputs(FILE)` makes them of a file with words); a data frame names its columns
    as the training data do. `y` are labels of any kind, of as many classes as the learner was trained for, unless it
    takes any number. With `calibrated`, probabilities are by the run's temperature; a `CalibrationWarning` tells of
    other numbers of rows of a class than it is fitted for. Raises `UsageError`, a `ValueError`, for anything else.

    Of scikit-learn's `check_estimator` it fails what asks for other numbers of columns or of classes than the run's,
    and `check_methods_subset_invariance`, which wants a row's probabilities to agree to 1e-7 however many rows are
    predicted with it: in float32 they agree to about 1e-5. The order of the classes is that of `classes_`;
    `sample_weight` is not taken.

    >>> from metarl.fewshot import FewShotClassifier  # needs scikit-learn
    >>> options = {"iterations": 2}
    >>> config = metarl.fewshot.FewShotConfig("protonet", "iris", learner_options=options, episodes=10)
    >>> classifier = FewShotClassifier(metarl.train(config, progress=False))
    >>> _ = classifier.fit([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]], ["setosa", "virginica"])
    >>> classifier.predict_proba([[5.0, 3.4, 1.5, 0.2]]).shape
    (1, 2)
    """

    def __init__(self, run: Any, *, calibrated: Any = False, device: Any = None):
        # As scikit-learn wants it, arguments are looked at in `fit` only.
        self.run = run
        self.calibrated = calibrated
        self.device = device

    def fit(self, X: Any, y: Any) -> "FewShotClassifier":
        """Takes the support set `X` `[n, D]`, `y` `[n]`."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise UsageError(f"a classifier needs 2 classes or more, and y has one class, {self.classes_[0]!r}")
        learner = self._open(X.shape[1], len(self.classes_))
        encoder = learner.file_encoder
        if encoder is not None and hasattr(self, "feature_names_in_"):
            _check_columns(self.feature_names_in_.tolist(), encoder.features() or {})
        names = [_name(label) for label in self.classes_.tolist()]
        favourable, fixed = (None, ()) if encoder is None else (encoder.favourable, encoder.fixed_classes)
        ordered, _ = label_codes(names, favourable, fixed)
        self.order_ = np.array([ordered.index(name) for name in names])
        """The learner's label of each class."""
        self.learner_, self.support_x_, self.support_y_ = learner, X, self.order_[codes]
        learner.predict(X, self.support_y_, X[:1], calibrated=self.calibrated)  # raises for what it does not take
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class of `classes_`, `[n, N]`."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        p = self.learner_.predict(self.support_x_, self.support_y_, X, calibrated=self.calibrated)
        return p.double().cpu().numpy()[:, self.order_]

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, `[n]`."""
        p = self.predict_proba(X)
        return self.classes_[p.argmax(1)]

    def _open(self, columns: int, classes: int) -> Learner:
        """The learner of the run, for `columns` inputs and so many `classes`."""
        learner = load(self.run, device=None if self.device is None else torch.device(self.device))
        shape = learner.spec.input_shape
        if len(shape) != 1 or learner.spec.kind != "classification":
            what = "values" if learner.spec.kind == "regression" else "signals" if len(shape) == 2 else "pictures"
            raise UsageError(f"FewShotClassifier classifies rows of numbers, and {self.run} is of {what}")
        if shape[0] != columns:
            raise UsageError(f"X has {columns} features, but {self.run} was trained with {shape[0]} features as input")
        return learner


def _name(label: Any) -> str:
    """A label as tables name it."""
    is_number = isinstance(label, (int, float)) and not isinstance(label, bool)
    return f"{label:.15g}" if is_number else str(label)


def _check_columns(given: list[str], features: Mapping[str, Sequence[int]]) -> None:
    """Raises `UsageError` if a data frame has another column where the run has a column of numbers."""
    wanted = {places[0]: name for name, places in features.items() if len(places) == 1}
    for place, name in sorted(wanted.items()):
        if given[place] != name:
            order = ", ".join(wanted.get(i, "…") for i in range(len(given)))
            raise UsageError(
                f"column {place + 1} of X is {given[place]!r}, where the run has {name!r}: give the columns in the "
                f"order of the training, {order}"
            )
