"""Lessons: from their source to the notebook that a learner opens; run, checked, released."""

from typing import TYPE_CHECKING

from exercises_utils import lazily

if TYPE_CHECKING:
    from exercises_utils.lessons.building import (
        Lesson,
        LessonError,
        build,
        execute,
        exercise_notebook,
        find_lessons,
        out_of_step,
        read_source,
        set_repository,
        write_notebook,
    )
else:
    __getattr__ = lazily(
        __name__,
        {
            "building": [
                "Lesson",
                "LessonError",
                "build",
                "execute",
                "exercise_notebook",
                "find_lessons",
                "out_of_step",
                "read_source",
                "set_repository",
                "write_notebook",
            ]
        },
    )

__all__ = [
    "Lesson",
    "LessonError",
    "build",
    "execute",
    "exercise_notebook",
    "find_lessons",
    "out_of_step",
    "read_source",
    "set_repository",
    "write_notebook",
]
