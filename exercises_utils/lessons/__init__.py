"""Lessons: from their source to the notebook that a learner opens; run, checked, released."""

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
