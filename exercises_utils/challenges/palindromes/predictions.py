"""What lesson 03 asks its reader to predict before a figure. Options get their letters, and their order, from their names.

`test_predictions` holds the letters in the lesson's text to these.
"""

import plotly.graph_objects as go
import torch

from exercises_utils import plotting
from exercises_utils.challenges.palindromes.task import LENGTH, N_PAIRS, SECOND_HALF
from exercises_utils.checking.predicting import letters, predict
from exercises_utils.checking.predicting import predictions as _kept

where_end_looks = predict(
    "where_end_looks",
    "Positions 7 and 14 disagree. Where will END attend?",
    options={
        "mirror": "position 7, in the first half",
        "changed": "position 14, in the second half",
        "both": "both of them, about equally",
        "start": "`START`",
    },
)
one_row = predict(
    "one_row",
    "Of 100 palindromes, how many does one row of attention turn?",
    unit="of 100",
    low=0.0,
    high=100.0,
)
row_restored = predict(
    "row_restored",
    "Of 100 broken sequences, how many stay rejected with that row put right?",
    unit="of 100",
    low=0.0,
    high=100.0,
)
what_it_says = predict(
    "what_it_says",
    "Share rejected, by place and message: which sketch?",
    options={
        "half": "the sketch of “second half = wrong”",
        "itself": "the sketch of “I looked at myself”",
        "name": "the sketch of “I looked at place j”",
    },
)
which_inputs = predict(
    "which_inputs",
    "Through which inputs of layer 1 does the row's message arrive?",
    options={
        "queries": "queries",
        "keys": "keys alone",
        "values": "values alone",
        "keys and values": "keys and values together; neither alone is enough",
    },
)
which_values = predict(
    "which_values",
    "At places that the model notices, which wrong value is accepted most often?",
    options={
        "liked": "the one with the highest score in the matcher's token circuit",
        "next": "the next number (15 for 14)",
        "alike": "all alike: only the place matters",
    },
)
how_to_mend = predict(
    "how_to_mend",
    "Which mends the weak place?",
    options={
        "attention": "right attention alone",
        "message": "a name that is heard, alone",
        "either": "either of the two",
        "both": "only both together",
    },
)
summary = _kept.summary


def sketches() -> go.Figure:
    """What the three hypotheses of `what_it_says` predict, in the order of their letters."""
    place, source = torch.tensor(list(SECOND_HALF))[:, None], torch.arange(1, LENGTH + 1)[None]
    heard = torch.tensor(
        [2, 5, 11, 12, 14, 15, 17, 18, 19]
    )  # some places or other: the hypothesis does not say which
    panels = {
        "half": (source > N_PAIRS).expand(len(place), -1),
        "itself": source == place,
        "name": torch.isin(source, heard).expand(len(place), -1),
    }
    figure = plotting.heatmap_facets(
        {
            f"({letter})": panels[name].float()
            for letter, name in letters(what_it_says.exercise, panels).items()
        },
        title="Share rejected: three sketches (dark: all, light: none)",
        x="message: the place that it is about",
        y="written at",
        unit="share",
        x_labels=[str(i) for i in range(1, LENGTH + 1)],
        y_labels=[str(i) for i in SECOND_HALF],
        signed=False,
    )
    return figure.update_layout(coloraxis={"showscale": False}, margin={"r": 24})
