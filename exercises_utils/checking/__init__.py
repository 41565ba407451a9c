"""Checks of exercises: an answer is collected, compared with the truth, and explained."""

from typing import TYPE_CHECKING

from exercises_utils import lazily

if TYPE_CHECKING:
    from exercises_utils.checking.engine import ANYTHING, Case, Check, CheckFailed, Outcome, Output, Question
    from exercises_utils.checking.isolation import Fresh
    from exercises_utils.checking.predicting import Prediction, letters, predict, predictions
    from exercises_utils.checking.progress import CheckList
else:
    __getattr__ = lazily(
        __name__,
        {
            "engine": ["ANYTHING", "Case", "Check", "CheckFailed", "Outcome", "Output", "Question"],
            "isolation": ["Fresh"],
            "predicting": ["Prediction", "letters", "predict", "predictions"],
            "progress": ["CheckList"],
        },
    )

__all__ = [
    "ANYTHING",
    "Case",
    "Check",
    "CheckFailed",
    "CheckList",
    "Fresh",
    "Outcome",
    "Output",
    "Prediction",
    "Question",
    "letters",
    "predict",
    "predictions",
]
