"""Checks of exercises. An answer goes one way: `collect` calls it, `values` compares, `explain` says what is wrong."""

from typing import TYPE_CHECKING

from exercises_utils import lazily

if TYPE_CHECKING:
    from exercises_utils.checking.calls import Call, Draw, on_models
    from exercises_utils.checking.case import ANYTHING, Case
    from exercises_utils.checking.collect import Output
    from exercises_utils.checking.engine import Check, CheckFailed, Outcome
    from exercises_utils.checking.exercises import Answer, Exercise, answer, arg, exercise, then
    from exercises_utils.checking.families import model_family
    from exercises_utils.checking.isolation import Fresh
    from exercises_utils.checking.predicting import Prediction, letters, predict, predictions
    from exercises_utils.checking.progress import CheckList
    from exercises_utils.checking.questions import Question
else:
    __getattr__ = lazily(
        __name__,
        {
            "calls": ["Call", "Draw", "on_models"],
            "case": ["ANYTHING", "Case"],
            "collect": ["Output"],
            "engine": ["Check", "CheckFailed", "Outcome"],
            "exercises": ["Answer", "Exercise", "answer", "arg", "exercise", "then"],
            "families": ["model_family"],
            "isolation": ["Fresh"],
            "predicting": ["Prediction", "letters", "predict", "predictions"],
            "progress": ["CheckList"],
            "questions": ["Question"],
        },
    )

__all__ = [
    "ANYTHING",
    "Answer",
    "Call",
    "Case",
    "Check",
    "CheckFailed",
    "CheckList",
    "Draw",
    "Exercise",
    "Fresh",
    "Outcome",
    "Output",
    "Prediction",
    "Question",
    "answer",
    "arg",
    "exercise",
    "letters",
    "model_family",
    "on_models",
    "predict",
    "predictions",
    "then",
]
