"""The checks of lesson 05's first part: where each digit of the product is predicted, and how surely; and `reach`."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from exercises_utils.checking import Call, arg, exercise, then


@exercise("Read each digit where it is predicted", core=True, axes="batch place digit")
def answer_logits(
    logits, ids, prompt_length, n_answer, *, of="logits", late=0, step=1, turned=True, end=False
):
    """Position by position."""
    start = (logits.shape[1] - n_answer if end else prompt_length) - 1 + late
    written = [min(max(start + step * i, 0), logits.shape[1] - 1) for i in range(n_answer)]
    table = {"logits": logits, "probs": logits.softmax(-1), "log_probs": logits.log_softmax(-1)}[of]
    table = table if ids is None else table[:, :, list(ids)]
    return torch.stack([table[:, position] for position in (written[::-1] if turned else written)], dim=1)


def _answer_call(name: str, ids: Sequence[int], *sizes: int) -> Call:
    batch, prompt_length, n_answer, length, n_vocabulary = sizes
    logits = 3 * torch.randn(batch, length, n_vocabulary, generator=Generator().manual_seed(length))
    return Call(name, dict(logits=logits, ids=list(ids), prompt_length=prompt_length, n_answer=n_answer))


SHUFFLED = [15, 16, 18, 17, 24, 19, 23, 20, 22, 21]
answer_logits.given(
    [
        _answer_call("five digits, then END", range(1, 11), 4, 10, 5, 16, 15),
        _answer_call("four digits in a longer, padded sequence, other token ids", SHUFFLED, 3, 9, 4, 17, 26),
        _answer_call("three digits, which end the sequence", range(2, 12), 5, 7, 3, 10, 13),
        _answer_call("six digits, one sequence", SHUFFLED[::-1], 1, 11, 6, 19, 31),
    ]
)
answer_logits.slips(
    {
        "All is read at the prompt's last position; a digit is predicted one before it.": dict(step=0),
        "This is where the digit stands; the position before it predicts it.": dict(late=1),
        "This is one position too early: prompt_length - 1 predicts the first written digit.": dict(late=-1),
        "Places are in the order of writing; place 0, the units, is written last.": dict(turned=False),
        "The columns are 0 to 9 of the vocabulary; take the columns `ids`.": dict(ids=range(10)),
        "All tokens of the vocabulary are there; take the columns `ids`.": dict(ids=None),
        "The softmax over the whole vocabulary is taken; the logits are asked for.": dict(of="probs"),
        "Logarithms of probabilities are returned; the logits are asked for.": dict(of="log_probs"),
        "The end of the sequence may be padding; count positions from the prompt.": dict(end=True),
    }
)


def _digits(numbers: Int[Tensor, " batch"], places: int) -> Int[Tensor, "batch place"]:
    """As a text has them, the units first."""
    texts = [f"{number:0{places}d}"[::-1] for number in numbers.tolist()]
    return torch.tensor([[int(digit) for digit in text] for text in texts])


@exercise("How often each place is right", core=True, axes="place")
def place_accuracy(logits, products, *, digits="text", of="top", over="rows"):
    """From the digits as texts."""
    units, text = 10 ** torch.arange(logits.shape[1]), _digits(products, logits.shape[1])
    wrong = {"quotients": products[:, None] // units, "tens": products[:, None] // (10 * units) % 10}
    right = {"text": text, "writing": text.flip(1), **wrong}[digits]
    hit = ((logits.argmin(-1) if of == "least" else logits.argmax(-1)) == right).double()
    if of == "probs":
        hit = logits.double().softmax(-1).gather(-1, text[..., None])[..., 0]
    kinds = {"rows": hit.mean(0), "sum": hit.sum(0), "places": hit.mean(1), "nothing": hit}
    return hit.prod(1).mean() if over == "whole" else kinds[over]


def _products(batch: int, places: int, generator: Generator) -> Int[Tensor, " batch"]:
    return torch.randint(10 ** (places - 1), 10**places, (batch,), generator=generator)


def _name(batch: int, places: int) -> str:
    return f"{batch} product{'s' * (batch > 1)} of {places} digits"


def _accuracy_call(batch: int, places: int, seed: int) -> Call:
    """Places are harder the more they are to the right; in a tenth of the rows every place is right."""
    generator = Generator().manual_seed(seed)
    products = _products(batch, places, generator)
    lead = torch.linspace(1.2, 3.5, places)[:, None] + 9 * (torch.arange(batch) % 10 == 1).view(-1, 1, 1)
    logits = torch.randn(batch, places, 10, generator=generator) + lead * one_hot(
        _digits(products, places), 10
    )
    return Call(_name(batch, places), dict(logits=logits, products=products))


place_accuracy.given([_accuracy_call(*sizes) for sizes in ((60, 5, 0), (37, 4, 1), (50, 3, 2), (1, 6, 3))])
place_accuracy.slips(
    {
        "The digits are in the order of writing; place 0 is the units: turn them.": dict(digits="writing"),
        "The quotient by 10**place is no digit yet: `% 10` is missing.": dict(digits="quotients"),
        "The places are one too far: the units are `products // 10**0 % 10`.": dict(digits="tens"),
        "This is the share of rows with every place right; give one for each place.": dict(over="whole"),
        "These are counts; divide by the number of rows.": dict(over="sum"),
        "This is a mean over places for each row; average over the rows, by place.": dict(over="places"),
        "There is one answer for each row and place; average over the rows.": dict(over="nothing"),
        "This is the mean probability of the right digit; count how often it is on top.": dict(of="probs"),
        "The least likely digit is taken: argmax, not argmin.": dict(of="least"),
    }
)


@exercise("The right digit against a wrong one", core=True, axes="batch place")
def logit_difference(
    logits, right, wrong, *, less="wrong", of="logits", turned=False, equal=0.0, over="nothing"
):
    """From the digits as texts, each turned into a mask."""
    table = logits.softmax(-1) if of == "probs" else logits
    digits = [_digits(numbers, logits.shape[1]) for numbers in (right, wrong)]
    digits = [each.flip(1) if turned else each for each in digits]
    ours, theirs = (one_hot(each, 10).bool() for each in digits)
    best, mean = table.masked_fill(ours, -torch.inf).amax(-1), table.mean(-1)
    other = {"wrong": (table * theirs).sum(-1), "best": best, "mean": mean, "nothing": 0 * mean}[less]
    differ = digits[0] != digits[1]
    found = ((table * ours).sum(-1) - other).where(differ | (less != "wrong"), equal)
    mean_of_differing = (found * differ).sum(1) / differ.sum(1)
    return {"nothing": found, "differing": mean_of_differing, "kept": found[differ]}[over]


def _difference_call(batch: int, places: int, seed: int) -> Call:
    """In the first row all places but the units agree."""
    generator = Generator().manual_seed(seed)
    right, wrong = _products(batch, places, generator), _products(batch, places, generator)
    wrong[0] = right[0] + 1 if right[0] % 10 < 9 else right[0] - 1
    logits = torch.randn(batch, places, 10, generator=generator) * 2 + 1
    return Call(_name(batch, places), dict(logits=logits, right=right, wrong=wrong))


logit_difference.given(
    [_difference_call(*sizes) for sizes in ((9, 5, 10), (6, 4, 11), (7, 3, 12), (1, 6, 13))]
)
SIGN = dict(right=arg("wrong"), wrong=arg("right"))
logit_difference.slips(
    {
        "The sign is turned round: the right product's digit minus the wrong one's.": SIGN,
        "These are differences of probabilities; take the logits as they are.": dict(of="probs"),
        "The best other digit is subtracted; subtract the digit of `wrong`.": dict(less="best"),
        "The mean of all digits is subtracted; subtract the wrong product's digit.": dict(less="mean"),
        "Only the right product's digit is there; subtract the wrong product's.": dict(less="nothing"),
        "The digits are taken in the order of writing; place 0 of `logits` is the units.": dict(turned=True),
        "There is NaN where the two digits agree; the difference is 0 there.": dict(equal=torch.nan),
        "This is the mean over the places that differ; give each place its own.": dict(over="differing"),
        "Only the places that differ are kept; those that agree stay, with 0.": dict(over="kept"),
    }
)


@exercise("From which layer on a digit is there", core=False, axes="place")
def reach(
    scores,
    read_positions,
    threshold,
    *,
    stays=True,
    never=int,
    nan=-1,
    late=0,
    turned=False,
    give="",
    more=0,
):
    """From the last layer down, for as long as the score is high enough."""
    n_layers, reached, columns = len(scores), [], []
    for place, position in enumerate(read_positions[::-1] if turned else read_positions):
        column = scores[:, min(position + late, scores.shape[1] - 1), place].tolist()
        low = [not score >= threshold + more for score in column]
        layer = n_layers - [*low[::-1], True].index(True) if stays else [*low, False].index(False)
        layer = column.index(max(column)) if give == "highest" else layer
        layer = never(n_layers) if layer == n_layers else layer
        has_nan = any(score != score for score in column)
        reached.append((n_layers if nan is None else nan) if has_nan else layer)
        columns.append(column)
    return torch.tensor(columns if give == "scores" else reached)


def _reach_call(n_layers: int, positions: int, read: list[int], threshold: float, seed: int) -> Call:
    """Scores rise, on both sides of the threshold; place 0 falls again, place 1 falls at last, place 2 is NaN."""
    sizes = n_layers, positions, len(read)
    scores = torch.rand(sizes, generator=Generator().manual_seed(seed)).sort(0)[0]
    scores[:, read[0], 0] = torch.tensor([1.03, 0.97, *torch.linspace(1, 1.4, n_layers - 2)]) * threshold
    scores[-1, read[1], 1] = threshold * 0.98
    scores[:, :, 2] = torch.nan
    given = dict(scores=scores, read_positions=read, threshold=threshold)
    return Call(f"{n_layers} layers, {len(read)} places, threshold {threshold}", given)


reach.given(
    [
        _reach_call(layers, positions, read, threshold, seed)
        for seed, (layers, positions, *read) in enumerate(
            ((5, 15, 13, 12, 11, 10, 9), (7, 12, 10, 9, 8, 7), (4, 11, 8, 9, 10, 7)), start=20
        )
        for threshold in (0.375, 0.5, 0.75)  # all of them are exact in single precision, too
    ]
)
reach.slips(
    {
        "A later layer falls below the threshold again; the score has to stay high.": dict(stays=False),
        "A place that is never reached gives 0; it is n_layers.": dict(never=lambda n: 0),
        "A place that is never reached gives -1, which is for NaN; it is n_layers.": dict(never=lambda n: -1),
        "A place that is never reached gives the last layer; it is n_layers.": dict(never=lambda n: n - 1),
        "A place whose scores are NaN gives 0; it is -1.": dict(nan=0),
        "NaN gives n_layers, because a comparison with NaN is False; it is -1.": dict(nan=None),
        "This is the layer with the highest score, not the first to stay above.": dict(give="highest"),
        "The position is one too late: `read_positions[i]` is where place i is read.": dict(late=1),
        "The position is one too early: `read_positions[i]` is where place i is read.": dict(late=-1),
        "A score equal to the threshold counts as well: `>=`, not `>`.": dict(more=1e-6),
        "This is one layer too early, the last one that is low.": then(lambda of: (of - 1).clamp(-1)),
        "Layers are counted from 1, not from 0.": then(lambda of: of + (of >= 0).long()),
        "These are the scores at the reading positions; the layer is asked for.": dict(give="scores"),
        "The read positions are in reverse: `read_positions[i]` belongs to place i.": dict(turned=True),
    }
)
