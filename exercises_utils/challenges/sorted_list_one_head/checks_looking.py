"""The checks of lesson 01's first sections: what the model answers, where it attends, and what hiding a place does."""

import torch

from exercises_utils.challenges.sorted_list_one_head import checks_models as shared
from exercises_utils.challenges.sorted_list_one_head import task
from exercises_utils.checking import Question, exercise, on_models, then

ALL, MINUS = slice(None), float("-inf")


def _is_top(logits, numbers):
    return logits.topk(1).indices[..., 0] == numbers


def _probability(logits, numbers):
    return logits.softmax(-1).gather(-1, numbers[..., None])[..., 0]


@exercise("How often each answer is right", core=True, axes="answer")
def answer_accuracy(model, tokens, *, first=11, n=10, compare="sorted", of=_is_top, over=0):
    """Against the list, sorted here."""
    ordered = tokens[:, 1:11].sort(-1).values
    numbers = {"sorted": ordered, "list": tokens[:, 1:11], "here": tokens[:, 11:21], "next": tokens[:, 1:]}
    hits = of(model(tokens)[:, first : first + n], numbers[compare]).float()
    return hits.prod(-1).mean() if over == "lists" else hits if over is None else hits.mean(over)


answer_accuracy.given(on_models(shared.MODELS, tokens=shared.some_lists, batch=20, lesson_batch=120))
answer_accuracy.slips(
    {
        "The logits are read one position too late: the first answer is at MID, 11.": dict(first=12),
        "The logits are read one position too early: the first answer is at MID, 11.": dict(first=10),
        "Answers are compared with the numbers at their positions, not the next ones.": dict(compare="here"),
        "Answers are compared with the list as it was given; take the sorted one.": dict(compare="list"),
        "All predictions are counted; those at 11 to 20 are answers.": dict(first=0, n=21, compare="next"),
        "This is a share for each list; take the mean over lists, not over answer positions.": dict(over=1),
        "This is the share of lists without a mistake; return one for each answer.": dict(over="lists"),
        "This says of each list and answer whether it is right; take the mean over lists.": dict(over=None),
        "This is the mean probability; count how often the top logit is right.": dict(of=_probability),
    }
)


@exercise("The mean pattern", core=True, axes="query key")
def mean_pattern(model, tokens, *, of="pattern", heads=None, over=0):
    """From the weights."""
    raw = shared.masked_scores(model, tokens)
    if of == "mean":
        return raw.mean(0).softmax(-1)[0]
    values = raw if of == "scores" else raw.softmax(-1)
    values = values.mean(1) if heads == "mean" else values[:, 0]
    return values[0] if over == "first" else values if over is None else values.mean(over)


def _of_the_last_layer(model, tokens):
    return shared.patterns(model, tokens, model.cfg.n_layers - 1)[:, 0].mean(0)


mean_pattern.given(on_models(shared.MODELS, tokens=shared.shorter))
mean_pattern.slips(
    {
        "These are scores, before the softmax; average the pattern.": dict(of="scores"),
        "The softmax of the mean scores is not the mean pattern: average the patterns.": dict(of="mean"),
        "This is the pattern of the first list alone; take the mean over lists.": dict(over="first"),
        "This is the mean over queries; take the mean over lists.": dict(over=1),
        "The list axis is still there: take the mean over lists.": dict(over=None),
        "This is the mean over heads; take head 0 alone.": dict(heads="mean"),
        "This is a head of the last layer; head 0.0 is in layer 0, the first.": _of_the_last_layer,
    }
)


@exercise("Hide a place", core=True, axes="list position logit")
def hide_position(
    model, tokens, position, *, value=MINUS, of="scores", at="key", off=0, seen_by=ALL, heads=ALL, token=None
):
    """By the weights: what the patterns with a column of scores changed write."""
    if token is not None:  # a number, or a special token, counted from the last one
        return model(tokens.index_fill(1, torch.tensor(position), token % model.cfg.d_vocab))
    values = shared.masked_scores(model, tokens)
    if of == "pattern":
        values = values.softmax(-1)
    if at == "query":
        values[..., position, :] = value
    elif seen_by == "others":
        values[..., torch.arange(tokens.shape[1]) != position, position] = value
    else:
        values[:, heads, seen_by, position + off] = value
    return shared.logits_with(model, tokens, values if of == "pattern" else values.softmax(-1))


HIDE = "which is attended to in its place; hide the key instead."
PLACES = (4, 17, 1)
hide_position.given(
    on_models(shared.ONE_LAYER, tokens=shared.shorter, position=lambda draw: PLACES[draw.index], batch=3)
)
hide_position.slips(
    {
        "Nothing is hidden: these are the model's own logits. Does the hook return the changed scores, and does the "
        "model run with it?": lambda m, t, p: m(t),
        "The scores are set to 0, a score like others; minus infinity gives no attention.": dict(value=0.0),
        "The attention is set to 0 after the softmax, so the rest no longer adds up to 1; set the scores to minus "
        "infinity before it (`hook_attn_scores`).": dict(value=0.0, of="pattern"),
        "A row is set to minus infinity: that query sees nothing (0/0). Hide the key.": dict(at="query"),
        "A row of the pattern is 0; hide the key (last axis).": dict(at="query", value=0.0, of="pattern"),
        "Off by one: the place before is hidden. BOS is position 0, the list starts at 1.": dict(off=-1),
        "Off by one: the place after is hidden.": dict(off=1),
        "The place is hidden from MID alone; hide it from every query.": dict(seen_by=slice(11, 12)),
        "The place is hidden from the answer positions alone; hide it from all.": dict(seen_by=slice(11, 21)),
        "The place can still see itself; hide it from all queries, also its own.": dict(seen_by="others"),
        "Only the first head's scores are changed; hide the place from every head.": dict(heads=slice(1)),
        f"The token is replaced by BOS, {HIDE}": dict(token=-2),
        f"The token is replaced by MID, {HIDE}": dict(token=-1),
        f"The token is replaced by a 0, {HIDE}": dict(token=0),
        "These are logits at MID alone; return those of all positions.": then(lambda logits: logits[:, 11]),
        "These are logits at the answers alone; return those of all.": then(lambda logits: logits[:, 11:21]),
        "This is the change; return the logits.": lambda m, t, p: hide_position.truth(m, t, p) - m(t),
    }
)


def _what_if_hidden() -> str:
    """What MID answers most often when the smallest number, which stands in the list once, is hidden."""
    model, tokens = shared.MODELS[shared.LESSON].get(), task.make_data(400, seed=4).tokens
    tokens = tokens[tokens[:, 12] < tokens[:, 13]]
    counts = dict.fromkeys("abcd", 0)
    for place in task.LIST_POSITIONS:
        here = tokens[tokens[:, place] == tokens[:, 12]]
        answers = hide_position.truth(model, here, place)[:, task.MID_POSITION].argmax(-1)
        for letter, position in (("a", 12), ("b", 13), ("c", 21)):
            counts[letter] += int((answers == here[:, position]).sum())
    counts["d"] = len(tokens) - sum(counts.values())
    return max(counts, key=lambda letter: counts[letter])


what_if_hidden = Question(
    "what_if_hidden",
    "Predict what is answered without the smallest number",
    core=False,
    options={
        "a": ("the smallest number, as before", "with its place hidden, the model cannot know it."),
        "b": ("the second smallest", "it answers as if the hidden number were not in the list."),
        "c": ("the largest", "that would take a head that looks for an extreme; this one goes upwards."),
        "d": ("this or that; there is no rule", "the nine numbers still seen are sorted as before."),
    },
    answer=_what_if_hidden,
)


@exercise("How much attention the answer gets", core=False, axes="answer")
def attention_to_answer(
    model, tokens, *, first=11, places=range(1, 11), off=0, of="next", copies=sum, share=False, over=0
):
    """By loops over lists, answers and places."""
    rows: list[list[float]] = []
    pattern = shared.masked_scores(model, tokens)[:, 0].softmax(-1)
    for each, sequence in zip(pattern[:, first : first + 10].tolist(), tokens.tolist(), strict=True):
        rows.append([])
        numbers = sorted(sequence[1:11]) if of == "next" else sequence[11:21]
        for to, number in zip(each, numbers, strict=True):
            found = copies([to[place + off] for place in places if sequence[place] == number])
            rows[-1].append(found / sum(to[1:11]) if share else found)
    return torch.tensor(rows) if over is None else torch.tensor(rows).mean(over)


def _how_often_most(model, tokens):
    place = 1 + shared.patterns(model, tokens)[:, 0, 11:21, 1:11].argmax(-1)
    return (tokens.gather(1, place) == tokens[:, 12:]).float().mean(0)


COPIES = "add up the attention to all of its copies in the list."
attention_to_answer.given(on_models(shared.MODELS, tokens=shared.some_lists))
attention_to_answer.slips(
    {
        f"Only the first copy of the number is counted; {COPIES}": dict(copies=lambda to: to[0]),
        f"Only the last copy of the number is counted; {COPIES}": dict(copies=lambda to: to[-1]),
        f"This is the copy with the most attention; {COPIES}": dict(copies=max),
        "The attention to copies is averaged; add it up.": dict(copies=lambda to: sum(to) / len(to)),
        "This is the share of the attention to the list; do not divide by its sum.": dict(share=True),
        "The sorted part is counted too; count the places of the list, 1 to 10.": dict(places=range(1, 22)),
        "This is the attention to the number that stands at the query; take the next one.": dict(of="here"),
        "The queries are one position too late: the answers are given at 11 to 20.": dict(first=12),
        "The queries are one position too early: the answers are given at 11 to 20.": dict(first=10),
        "The keys are off by one: BOS is position 0, the list stands at 1 to 10.": dict(off=-1),
        "This is how often the most attended place is right; return how much attention.": _how_often_most,
        "This is the mean over answer positions; take the mean over lists.": dict(over=1),
        "The list axis is still there: take the mean over lists.": dict(over=None),
    }
)
