"""The drawing of lesson 03: how the model knows, with gaps for what the learner has found."""

from collections.abc import Mapping, Sequence

from exercises_utils.plotting.drawing import Arrow, Box, Plan

PLAN = Plan(
    title="How the model knows",
    columns={"first": "first half", "second": "second half", "END": "END"},
    rows=("tokens", "layer 0", "layer 1", "answer"),
    boxes={
        "mirror": Box("first", "tokens", "the mirror's value"),
        "itself": Box("second", "tokens", "the place's own value"),
        "matcher": Box("second", "layer 0", "head {who compares}"),
        "reader": Box("END", "layer 1", "head {who reads}, deaf to {unheard name}"),
        "verdict": Box("END", "answer", "{what END says}"),
    },
    arrows=[
        Arrow("{looks at, if equal}", "matcher", "looks here if the values are equal"),
        Arrow("{looks at, if different}", "matcher", "looks here if they differ"),
        Arrow("matcher", "reader", "names {what it names}, by {arrives by}"),
        Arrow("reader", "verdict"),
    ],
)


def pieces(
    matcher: tuple[int, int], readers: Mapping[int, Sequence[tuple[int, int]]], weak: int
) -> dict[str, object]:
    """The course's own pieces, for a model with this matcher, these readers of each place, and this weak place."""
    return {
        "who compares": matcher,
        "looks at, if equal": "mirror",
        "looks at, if different": "itself",
        "what it names": "the place it looked at",
        "arrives by": "keys and values",
        "who reads": sorted({head for heads in readers.values() for head in heads}),
        "unheard name": f"place {weak}",
        "what END says": "“no palindrome”, if it hears a name",
    }
