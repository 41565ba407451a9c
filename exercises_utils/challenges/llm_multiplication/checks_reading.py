"""The checks of lesson 05's first part: where each digit of the product is predicted, and how surely; and `reach`."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from exercises_utils.checking import Case, Check


def _answer_logits(
    logits: Float[Tensor, "batch position vocabulary"], ids: list[int], prompt_length: int, n_answer: int
) -> Float[Tensor, "batch place digit"]:
    """One number at a time: the digit of place p stands at prompt_length + n_answer - 1 - p, and is predicted before."""
    return _read(logits, ids, prompt_length + n_answer - 2, n_answer)


def _read(logits: Tensor, ids: list[int], units: int, n_answer: int, step: int = -1) -> Tensor:
    """The logits of `ids`, place by place, from the position where the units are read."""
    rows = [
        [[row[units + step * place, token] for token in ids] for place in range(n_answer)] for row in logits
    ]
    return torch.stack([torch.stack([torch.stack(digits) for digits in places]) for places in rows])


def _answer_logits_cases() -> list[Case]:
    cases = []
    shuffled = [15, 16, 18, 17, 24, 19, 23, 20, 22, 21]
    for name, ids, prompt_length, n_answer, length, n_vocabulary in (
        ("five digits, a sequence as long as prompt, answer and END", list(range(1, 11)), 10, 5, 16, 15),
        ("four digits in a longer, padded sequence, other token ids", shuffled, 9, 4, 17, 26),
        ("three digits, a sequence that ends with the answer", list(range(2, 12)), 7, 3, 10, 13),
    ):
        generator = Generator().manual_seed(length)
        logits = torch.randn(4, length, n_vocabulary, generator=generator) * 3
        right = _answer_logits(logits, ids, prompt_length, n_answer)
        units = prompt_length + n_answer - 2

        def read(
            ids: list[int], units: int, step: int = -1, logits: Tensor = logits, n: int = n_answer
        ) -> Tensor:
            at = [units + step * place for place in range(n)]
            return logits[:, [min(max(position, 0), logits.shape[1] - 1) for position in at]][..., ids]

        late = units + 1
        everything = read(list(range(n_vocabulary)), units)
        mistakes: dict[str, Any] = {
            "Every place is read at the last position of the prompt, where only the first written digit is predicted. Each "
            "further digit is predicted one position later, at the digit written before it.": read(
                ids, prompt_length - 1, step=0
            ),
            "The logits are read where the digit stands; a position predicts the *next* token, so read one position "
            "earlier.": read(ids, late),
            "The logits are read one position too early: the first written digit is predicted at prompt_length - 1.": read(
                ids, units - 1
            ),
            "Places are in the order of writing; place 0 is the units, the digit that is written last.": right.flip(
                1
            ),
            "Places are in the order of writing, and read where each digit stands. Place 0 is the units, and a position "
            "predicts the next token.": read(ids, late).flip(1),
            "The columns are 0 to 9 of the vocabulary; take the columns `ids`, the token ids of the digits.": read(
                list(range(10)), units
            ),
            "The digits are in reverse order; column d is the digit d, the token `ids[d]`.": right.flip(2),
            "The softmax is taken; the logits themselves are asked for.": right.softmax(-1),
            "The softmax over the whole vocabulary is taken; the logits themselves are asked for.": everything.softmax(
                -1
            )[..., ids],
            "Logarithms of probabilities are returned; the logits themselves are asked for.": everything.log_softmax(
                -1
            )[..., ids],
            "The logarithm of a softmax over the ten digits is returned; the logits themselves are asked for.": (
                right.log_softmax(-1)
            ),
            "All tokens of the vocabulary are there; take the columns `ids`.": everything,
            "The axes are (batch, digit, place); return (batch, place, digit).": right.transpose(1, 2),
            "The axes are (place, batch, digit); return (batch, place, digit).": right.transpose(0, 1),
        }
        if length > prompt_length + n_answer:
            message = (
                "The positions are counted from the end of the sequence, where END or padding may stand; count from the "
                "prompt: the first written digit is predicted at prompt_length - 1."
            )
            mistakes[message] = read(ids, length - 2)
            mistakes[
                message + " And a place is read where the digit before it is *written*, not the last token."
            ] = read(ids, length - 1)
        cases.append(
            Case(
                name,
                (logits, ids, prompt_length, n_answer),
                right,
                axes=("batch", "place", "digit"),
                mistakes=mistakes,
            )
        )
    return cases


answer_logits = Check(
    "answer_logits",
    "Read each digit where it is predicted",
    core=True,
    cases=_answer_logits_cases,
    reference=_answer_logits,
)


def _written(number: int, places: int) -> list[int]:
    """The digits as a text has them, the units first."""
    return [int(digit) for digit in reversed(f"{number:0{places}d}")]


def _digits(numbers: Int[Tensor, " batch"], places: int) -> Int[Tensor, "batch place"]:
    return torch.tensor([_written(number, places) for number in numbers.tolist()])


def _place_accuracy(
    logits: Float[Tensor, "batch place digit"], products: Int[Tensor, " batch"]
) -> Float[Tensor, " place"]:
    """From the digits as texts, row by row."""
    batch, places, _ = logits.shape
    right = torch.zeros(places)
    for row, product in zip(logits, products.tolist(), strict=True):
        for place, digit in enumerate(_written(product, places)):
            right[place] += all(
                row[place, digit] > row[place, other] for other in range(10) if other != digit
            )
    return right / batch


def _place_accuracy_cases() -> list[Case]:
    cases = []
    for batch, places, seed in ((60, 5, 0), (37, 4, 1), (50, 3, 2)):
        generator = Generator().manual_seed(seed)
        products = torch.randint(10 ** (places - 1), 10**places, (batch,), generator=generator)
        digits = _digits(products, places)
        logits = torch.randn(batch, places, 10, generator=generator)
        # Places that are harder the more they are to the right, so that the shares differ.
        bonus = torch.linspace(1.2, 3.5, places)[:, None] * torch.nn.functional.one_hot(digits, 10)
        logits = logits + bonus
        # In a tenth of the rows every place is right, so that "all places right" is no constant.
        logits = logits + 9 * torch.nn.functional.one_hot(digits, 10) * (torch.arange(batch) % 10 == 0).view(
            -1, 1, 1
        )
        right = _place_accuracy(logits, products)
        top = logits.argmax(-1)

        def share(of: Tensor, top: Tensor = top) -> Tensor:
            return (top == of).double().mean(0)

        no_modulo = torch.stack([products // 10**place for place in range(places)], dim=1)
        from_tens = torch.stack([products // 10 ** (place + 1) % 10 for place in range(places)], dim=1)
        whole = (top == digits).all(-1).double().mean()
        probability = logits.double().softmax(-1).gather(-1, digits[..., None])[..., 0].mean(0)
        hits = (top == digits).double()
        cases.append(
            Case(
                f"{batch} products of {places} digits",
                (logits, products),
                right,
                axes=("place",),
                mistakes={
                    "The digits of the product are taken in the order of writing; place 0 is the units. Turn them round.": (
                        share(digits.flip(1))
                    ),
                    "The shares are in the order of writing; place 0, the units, comes first.": right.flip(0),
                    "The digit of a place is the quotient by 10**place, and of that the remainder by 10: `% 10` is "
                    "missing.": share(no_modulo),
                    "The places are one too far: the units are `products // 10**0 % 10`.": share(from_tens),
                    "This is the share of rows in which every place is right; give one share for each place.": whole,
                    "This is the share of rows in which every place is right, repeated; give each place its own.": (
                        whole.expand(places)
                    ),
                    "This is the mean over places; give one share for each place.": right.mean(),
                    "These are counts; divide by the number of rows.": right * batch,
                    "This is the mean over places for each row; average over the rows, for each place.": hits.mean(
                        1
                    ),
                    "There is one answer for each row and place; average over the rows.": hits,
                    "These are percentages; give shares between 0 and 1.": right * 100,
                    "This is the share of wrong digits; the share of right ones is asked for.": 1 - right,
                    "This is the mean probability of the right digit; count how often it is the top one.": probability,
                    "The least likely digit is taken: argmax, not argmin.": share(logits.argmin(-1)),
                },
            )
        )
    return cases


place_accuracy = Check(
    "place_accuracy",
    "How often each place is right",
    core=True,
    cases=_place_accuracy_cases,
    reference=_place_accuracy,
)


def _logit_difference(
    logits: Float[Tensor, "batch place digit"], right: Int[Tensor, " batch"], wrong: Int[Tensor, " batch"]
) -> Float[Tensor, "batch place"]:
    """Row by row, from the digits as texts."""
    places = logits.shape[1]
    rows = [
        [
            row[p, a] - row[p, b]
            for p, (a, b) in enumerate(zip(_written(r, places), _written(w, places), strict=True))
        ]
        for row, r, w in zip(logits, right.tolist(), wrong.tolist(), strict=True)
    ]
    return torch.stack([torch.stack(row) for row in rows])


def _logit_difference_cases() -> list[Case]:
    cases = []
    for batch, places, seed in ((9, 5, 10), (6, 4, 11), (7, 3, 12)):
        generator = Generator().manual_seed(seed)
        low, high = 10 ** (places - 1), 10**places
        products = torch.randint(low, high, (batch,), generator=generator)
        wrong = torch.randint(low, high, (batch,), generator=generator)
        wrong[0] = (
            products[0] + 1 if products[0] % 10 < 9 else products[0] - 1
        )  # all places but the units agree
        logits = torch.randn(batch, places, 10, generator=generator) * 2 + 1
        right = _logit_difference(logits, products, wrong)
        ours, theirs = _digits(products, places), _digits(wrong, places)

        def of(digits: Tensor, logits: Tensor = logits) -> Tensor:
            return logits.gather(-1, digits[..., None])[..., 0]

        others = logits.scatter(-1, ours[..., None], -torch.inf).amax(-1)
        probabilities = logits.softmax(-1)
        differ = ours != theirs
        # Where a message is about the places that differ, those that agree would be 0/0.
        mean_over_differing = (right * differ).sum(1) / differ.sum(1)
        cases.append(
            Case(
                f"{batch} products of {places} digits",
                (logits, products, wrong),
                right,
                axes=("batch", "place"),
                mistakes={
                    "The sign is turned round: the right product's digit minus the wrong one's.": -right,
                    "This is the mean over places; give one difference for each row and place.": right.mean(
                        1
                    ),
                    "This is the mean over the places that differ; give one difference for each row and place.": (
                        mean_over_differing
                    ),
                    "This is the sum over places; give one difference for each row and place.": right.sum(1),
                    "This is the mean over rows; give one difference for each row and place.": right.mean(0),
                    "This is the mean over rows and places; give one difference for each row and place.": right.mean(),
                    "These are differences of probabilities; take the logits as they are.": of(
                        ours, probabilities
                    )
                    - of(theirs, probabilities),
                    "The best other digit is subtracted; subtract the digit of the wrong product, `wrong`.": of(
                        ours
                    )
                    - others,
                    "The mean of all digits is subtracted; subtract the logit of the wrong product's digit.": of(
                        ours
                    )
                    - logits.mean(-1),
                    "Only the right product's digit is there; subtract the logit of the wrong product's digit.": of(
                        ours
                    ),
                    "The digits are taken in the order of writing; place 0 of `logits` is the units.": of(
                        ours.flip(1)
                    )
                    - of(theirs.flip(1)),
                    "The result is in the order of writing; place 0, the units, comes first.": right.flip(1),
                    "Only the first written digit is there; give one difference for each place.": right[
                        :, -1
                    ],
                    "Only the units are there; give one difference for each place.": right[:, 0],
                    "Only the places that differ are kept; those that agree stay, with 0.": right[differ],
                    "There is NaN where the two digits agree; the difference is 0 there.": right.where(
                        differ, torch.nan
                    ),
                },
            )
        )
    return cases


logit_difference = Check(
    "logit_difference",
    "The right digit against a wrong one",
    core=True,
    cases=_logit_difference_cases,
    reference=_logit_difference,
)


def _reach(
    scores: Float[Tensor, "layer position place"], read_positions: list[int], threshold: float
) -> Int[Tensor, " place"]:
    """From the last layer down, for as long as the score is high enough."""
    n_layers = len(scores)
    reached = []
    for place, position in enumerate(read_positions):
        column = scores[:, position, place].tolist()
        layer = n_layers
        while layer > 0 and column[layer - 1] >= threshold:
            layer -= 1
        reached.append(-1 if any(score != score for score in column) else layer)
    return torch.tensor(reached)


def _reach_cases() -> list[Case]:
    cases = []
    for n_layers, positions, read, threshold, seed in (
        (4, 15, [13, 12, 11, 10, 9], 0.5, 20),
        (6, 12, [10, 9, 8, 7], 0.8, 21),
        (3, 11, [8, 9, 10], 0.4, 22),
    ):
        generator = Generator().manual_seed(seed)
        places = len(read)
        scores = torch.rand(n_layers, positions, places, generator=generator)
        # One place is high once and low again, one is never reached, one cannot change, the others rise for good.
        for place, position in enumerate(read):
            rise = 1 + place % (n_layers - 1)
            scores[:rise, position, place] = threshold * torch.rand(rise, generator=generator) * 0.9
            scores[rise:, position, place] = (
                threshold + 0.1 + 0.1 * torch.rand(n_layers - rise, generator=generator)
            )
        scores[0, read[0], 0] = threshold + 0.05
        scores[1, read[0], 0], scores[2:, read[0], 0] = threshold / 2, threshold + 0.2
        scores[-1, read[1], 1] = threshold / 3
        scores[:, :, 2] = torch.nan
        if places > 3:
            scores[:, read[3], 3] = torch.linspace(
                threshold, 0.99, n_layers
            )  # reached from the first layer on
        right = _reach(scores, read, threshold)
        at = torch.stack([scores[:, position, place] for place, position in enumerate(read)], dim=1)
        nan = at.isnan().any(0)
        high = at >= threshold

        def marked(found: Tensor, nan: Tensor = nan) -> Tensor:
            return found.where(~nan, -1)

        first = marked(high.int().argmax(0).where(high.any(0), n_layers))
        zero_for_none = right.where(right < n_layers, 0)
        late = _reach(scores, [min(p + 1, positions - 1) for p in read], threshold)
        early = _reach(scores, [p - 1 for p in read], threshold)
        strictly = _reach(scores, read, threshold + 1e-6)
        last_low = marked(torch.where(~high, torch.arange(n_layers)[:, None], -1).amax(0).where(~nan, 0))
        cases.append(
            Case(
                f"{n_layers} layers, {places} places, threshold {threshold}",
                (scores, read, threshold),
                right,
                axes=("place",),
                mistakes={
                    "A layer counts although a later one falls below the threshold again; the score has to stay high from "
                    "there on.": first,
                    "A layer counts although a later one falls below the threshold again, and a place that is never reached "
                    "gives 0 (argmax of all False); it is n_layers.": marked(high.int().argmax(0)),
                    "A place that is never reached gives 0; it is n_layers.": zero_for_none,
                    "A place that is never reached gives -1; it is n_layers. -1 is for places whose scores are NaN.": (
                        right.where(right < n_layers, -1)
                    ),
                    "A place that is never reached gives the last layer; it is n_layers.": right.clamp(
                        max=n_layers - 1
                    ),
                    "A place whose scores are NaN gives 0; it is -1.": right.where(~nan, 0),
                    "A place whose scores are NaN gives n_layers, because a comparison with NaN is False; it is -1.": (
                        right.where(~nan, n_layers)
                    ),
                    "This is the layer with the highest score; the first from which the score stays at least `threshold` is "
                    "asked for.": marked(at.nan_to_num(-1.0).argmax(0)),
                    "The position is one too late: `read_positions[i]` is where place i is read.": late,
                    "The position is one too early: `read_positions[i]` is where place i is read.": early,
                    "A score equal to the threshold counts as well: `>=`, not `>`.": strictly,
                    "This is one layer too early, the last one below the threshold.": last_low,
                    "These are the scores at the reading positions; the layer is asked for.": at.T,
                    "The layers are counted from 1; the first is layer 0.": (right + 1).where(~nan, -1),
                    "The read positions are in reverse order: `read_positions[i]` belongs to place i.": _reach(
                        scores, read[::-1], threshold
                    ),
                },
            )
        )
    return cases


reach = Check(
    "reach",
    "From which layer on a digit is there",
    core=False,
    cases=_reach_cases,
    reference=_reach,
)
