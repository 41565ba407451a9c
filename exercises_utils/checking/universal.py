"""Slips that happen in every exercise: what they make of the right answer, from the names of its axes alone.

`wrong_versions` goes forward, from the right numbers to the wrong ones that a slip makes of them. `cause` goes back, from
two tensors to what turns one into the other where a number is unknown (a factor, an offset). Every message states what
was found, for all numbers; a possible reason comes as a question.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import combinations

import torch
from torch import Tensor

from exercises_utils.checking.values import Axes, agree, axis_names, double, listed, number

Wrong = Iterator[tuple[str, Tensor]]


# ── forward: what a slip makes of the right numbers ─────────────────────────────────────────────────────────


def wrong_versions(right: Tensor, axes: Axes) -> Wrong:
    """The wrong versions of a right tensor of real numbers, as (message, numbers); some may equal the right one."""
    names = axis_names(right, axes)
    boolean = right.dtype == torch.bool
    if boolean:
        yield "True and False are exchanged.", ~right
        right = right.double()
    elif right.is_complex():
        yield "These are the absolute values.", right.abs()
        yield "These are the conjugates: the imaginary parts have the opposite sign.", right.conj()
    else:
        right = double(right)
        yield from _of_each_number(right)
    yield from _moved(right, names)
    yield from _repeated(right, names)
    if not right.is_complex():
        yield from _reduced(right, names)
        if not boolean:
            yield from _along(right, names)


def _of_each_number(right: Tensor) -> Wrong:
    yield "Every number has the opposite sign.", -right
    yield "Negative numbers came out positive: is an absolute value taken that is not asked for?", right.abs()
    yield "These are the squares of the expected numbers: is a root missing?", right**2
    yield "These are 1 minus the expected numbers.", 1 - right
    finite = right[right.isfinite()]
    if finite.numel() and finite.min() >= 0:
        yield "These are the square roots of the expected numbers: is a square missing?", right.sqrt()
        yield "These are the logarithms of the expected numbers.", right.log()
    if finite.numel() and finite.max() < 30:
        yield "These are the exponentials of the expected numbers: is a logarithm missing?", right.exp()
    yield "Every number is 0.", torch.zeros_like(right)


def _moved(right: Tensor, names: Sequence[str]) -> Wrong:
    for i, j in combinations(range(right.ndim), 2):
        swapped = listed([names[i], names[j]])
        yield (
            f"The numbers are right, but {swapped} are swapped: did you return the transpose?",
            right.transpose(i, j),
        )
    if right.ndim == 3:
        for order in ((1, 2, 0), (2, 0, 1)):
            wanted, came = ", ".join(names), ", ".join(names[i] for i in order)
            yield (
                f"The numbers are right, but the axes are ({came}); asked for is ({wanted}).",
                right.permute(order),
            )
    for i, axis in enumerate(names):
        yield f"The numbers are right, but in reverse order along `{axis}`.", right.flip(i)


def _repeated(right: Tensor, names: Sequence[str]) -> Wrong:
    loop = " (A function made in a loop sees the loop variable as the loop left it.)"
    for i, axis in enumerate(names):
        size = right.shape[i]
        if not size:
            continue
        first, last = right.narrow(i, 0, 1), right.narrow(i, size - 1, 1)
        yield f"Every `{axis}` holds the numbers of the last one.{loop}", last.expand_as(right)
        yield f"Every `{axis}` holds the numbers of the first one.", first.expand_as(right)
        yield f"Only the first `{axis}` is there; all are asked for.", first.squeeze(i)
        yield f"Only the last `{axis}` is there; all are asked for.", last.squeeze(i)
        yield f"The first `{axis}` is missing.", right.narrow(i, 1, size - 1)
        yield f"The last `{axis}` is missing.", right.narrow(i, 0, size - 1)
        if size > 2:
            yield f"The first and the last `{axis}` are missing.", right.narrow(i, 1, size - 2)


def _reduced(right: Tensor, names: Sequence[str]) -> Wrong:
    for i, axis in enumerate(names):
        if not right.shape[i]:
            continue
        for kept in (False, True):
            yield f"This is the mean over `{axis}`; each is asked for.", right.mean(i, keepdim=kept)
            yield f"This is the sum over `{axis}`; each is asked for.", right.sum(i, keepdim=kept)
        repeated = right.mean(i, keepdim=True).expand_as(right)
        yield f"This is the mean over `{axis}`, repeated; each is asked for.", repeated
        yield f"This is the largest over `{axis}`; each is asked for.", right.amax(i)
        yield (
            f"These are the places of the largest along `{axis}`; the numbers themselves are asked for.",
            right.argmax(i).double(),
        )
    if right.ndim > 1:
        yield "This is the mean of all numbers; each is asked for.", right.mean()
        yield "This is the sum of all numbers; each is asked for.", right.sum()


def _along(right: Tensor, names: Sequence[str]) -> Wrong:
    for i, axis in enumerate(names):
        if right.shape[i] < 2:
            continue
        probabilities = _sum_to_one(right, i)
        if probabilities:
            yield f"The softmax over `{axis}` is taken twice.", right.softmax(i)
            one_hot = torch.zeros_like(right).scatter(i, right.argmax(i, keepdim=True), 1.0)
            yield (
                f"Only the largest along `{axis}` is kept; the probabilities themselves are asked for.",
                one_hot,
            )
        else:
            yield (
                f"A softmax has been taken over `{axis}`; the numbers before it are asked for.",
                right.softmax(i),
            )
            yield (
                f"A log-softmax has been taken over `{axis}`; the numbers before it are asked for.",
                right.log_softmax(i),
            )
            yield f"The mean over `{axis}` is subtracted.", right - right.mean(i, keepdim=True)
            total = right.sum(i, keepdim=True)
            yield (
                f"The numbers are divided by their sum along `{axis}`.",
                right / total.where(total != 0, 1.0),
            )
        yield f"These are running sums along `{axis}`.", right.cumsum(i)


def _sum_to_one(numbers: Tensor, axis: int) -> bool:
    if (numbers < 0).any():
        return False
    return bool(((numbers.sum(axis) - 1).abs() < 1e-4).all())


# ── backward: what turns one tensor into another ────────────────────────────────────────────────────────────


class Numbers:
    """A tensor that came and a right one of the same shape, in double precision, with the names of their axes.

    Entries that are infinite on either side (a mask) are left out of the diagnoses; `counted` are the others.
    """

    def __init__(
        self,
        value: Tensor,
        expected: Tensor,
        axes: Axes,
        atol: float | None = None,
        rtol: float | None = None,
    ) -> None:
        self.value, self.expected = double(value), double(expected)
        self.atol, self.rtol = atol, rtol
        self.axes = axis_names(expected, axes)
        self.counted = self.value.isfinite() & self.expected.isfinite()

    @cached_property
    def wrong(self) -> Tensor:
        """Which entries do not agree."""
        return ~agree(self.value, self.expected, self.atol, self.rtol)

    def without_infinities(self) -> "Numbers":
        """The same with 0 on both sides where either is not finite, so that sums stay finite."""
        if self.counted.all():
            return self
        value, expected = (side.where(self.counted, 0.0) for side in (self.value, self.expected))
        clean = Numbers(value, expected, self.axes, self.atol, self.rtol)
        clean.counted = self.counted
        return clean

    def is_near(self, other: Tensor) -> bool:
        """Whether the value agrees with another tensor in every entry that counts."""
        same_shape = other.shape == self.value.shape
        return same_shape and bool((agree(self.value, other, self.atol, self.rtol) | ~self.counted).all())

    @property
    def difference(self) -> Tensor:
        """Value minus expected."""
        return self.value - self.expected


def not_finite(n: Numbers) -> str | None:
    """What is not finite on one side only."""
    nan = n.value.isnan() & ~n.expected.isnan()
    if nan.any():
        return (
            f"{share(nan)} NaN (not a number): look for 0/0, the logarithm of a negative number, "
            "or infinity minus infinity."
        )
    infinite = n.value.isinf() & n.expected.isfinite()
    if infinite.any():
        return f"{share(infinite)} infinite: look for a division by 0, a log of 0, or a mask that stayed."
    unmasked = n.expected.isinf() & n.value.isfinite()
    if unmasked.any():
        return f"{share(unmasked)} finite where infinity (a mask) is expected: is the mask missing?"
    return None


def share(bad: Tensor) -> str:
    """How many are bad, as the beginning of a sentence."""
    if bad.ndim == 0:
        return "The number is"
    if bad.all():
        return "All numbers are"
    count = int(bad.sum())
    return f"{count} of {bad.numel()} numbers {'is' if count == 1 else 'are'}"


def _softmax_missing(n: Numbers) -> str | None:
    if n.value.is_complex() or n.expected.is_complex():
        return None
    for i, axis in enumerate(n.axes):
        if n.expected.shape[i] < 2 or not _sum_to_one(n.expected, i):
            continue
        if agree(n.value, n.expected.log(), n.atol, n.rtol).all():
            return None  # logarithms of probabilities: a softmax would hide that
        if agree(n.value.softmax(i), n.expected, n.atol, n.rtol).all():
            return f"A softmax over `{axis}` is missing."
    return None


def _factor(n: Numbers) -> str | None:
    square = float((n.expected.abs() ** 2).sum())
    if square == 0:
        return None
    k = float((n.value * n.expected).sum()) / square
    if k == 0 or not n.is_near(k * n.expected):
        return None
    return f"Every number is {k:.4g} times the expected one{_meaning(k)}"


def _meaning(k: float) -> str:
    """What a constant factor may come from."""
    for name, size in (("percent for a share", 100.0), ("bits for nats", 1 / math.log(2))):
        if abs(abs(k) / size - 1) < 1e-4:
            return f": is this {name}?"
        if abs(abs(k) * size - 1) < 1e-4:
            one, _, other = name.partition(" for ")
            return f": is this {other.removeprefix('a ')} for {one}?"
    for size, is_large in ((abs(k), True), (1 / abs(k), False)):
        if 1.5 < size < 10_000 and abs(size - round(size)) < 1e-3:
            return (
                f" (a whole number, {round(size)}): is a sum taken where a mean is asked for?"
                if is_large
                else f" (1/{round(size)}): is a mean taken where a sum is asked for?"
            )
        if 1.2 < size < 100 and abs(size**2 - round(size**2)) < 1e-3:
            root = f"sqrt({round(size**2)})"
            return (
                f", which is {root}: is a division by it missing?"
                if is_large
                else f", which is 1/{root}: is one division by it too many?"
            )
    return ": is a scale missing, or one too many?"


def _offset(n: Numbers) -> str | None:
    if n.counted.sum() < 2:
        return None
    c = float(n.difference.sum() / n.counted.sum())
    if not n.is_near(n.expected + c):
        return None
    direction = "large" if c > 0 else "small"
    return (
        f"Every number is {abs(c):.4g} too {direction}: is a constant (a bias, a mean) missing or too many?"
    )


def _shifted(n: Numbers) -> str | None:
    for i, axis in enumerate(n.axes):
        size = n.expected.shape[i]
        if size < 3:
            continue
        for step in (1, -1):
            value = n.value.narrow(i, max(step, 0), size - 1)
            moved = n.expected.narrow(i, max(-step, 0), size - 1)
            if not agree(value, moved, n.atol, n.rtol).all():
                continue
            if not agree(moved, moved.narrow(i, 0, 1).expand_as(moved)).all():
                direction = "far" if step > 0 else "early"
                return f"The numbers are right, but one place too {direction} along `{axis}`: off by one."
    return None


def _offset_per_row(n: Numbers) -> str | None:
    for i, axis in enumerate(n.axes if n.expected.ndim > 1 else ()):
        count = n.counted.sum(i, keepdim=True)
        if count.max() > 2 and n.is_near(n.expected + n.difference.sum(i, keepdim=True) / count.clamp_min(1)):
            return (
                f"Differences along `{axis}` are right, but each {_others(n, i)} is off by its own constant: "
                "is a bias or a mean missing, or one too many?"
            )
    return None


def _factor_per_row(n: Numbers) -> str | None:
    for i, axis in enumerate(n.axes if n.expected.ndim > 1 else ()):
        square = (n.expected**2).sum(i, keepdim=True)
        k = (n.value * n.expected).sum(i, keepdim=True) / square.where(square > 0, 1.0)
        scaled = n.counted.sum(i).max() > 2 and not ((k == 0) & (square > 0)).any()
        if scaled and n.is_near(k * n.expected):
            return (
                f"Proportions along `{axis}` are right, but each {_others(n, i)} has a scale of its own: "
                "is a normalisation missing, or taken over another axis?"
            )
    return None


def _others(n: Numbers, i: int) -> str:
    return listed([axis for j, axis in enumerate(n.axes) if j != i])


BACKWARD: tuple[Callable[[Numbers], str | None], ...] = (_factor, _offset)
"""Tried in this order, also on the numbers that another slip makes."""
LOOSER: tuple[Callable[[Numbers], str | None], ...] = (_shifted, _offset_per_row, _factor_per_row)
"""These leave numbers open (the edge, one for each row), so they are tried on the right numbers only."""


def cause(failing: Sequence[Numbers], first_guess: bool = False) -> str | None:
    """The first explanation that holds in every failing case, in the words for the first of them."""
    if (missing := _softmax_missing(failing[0])) and all(_softmax_missing(n) for n in failing[1:]):
        return missing
    if any(n.value.is_complex() or n.expected.is_complex() for n in failing):
        return None
    several = [n for n in failing if n.expected.numel() > 1]  # anything turns one number into another
    if not several:
        return None
    clean = [n.without_infinities() for n in several]
    quickest_first = sorted(clean, key=lambda n: n.expected.numel())
    for diagnose in BACKWARD + (LOOSER if first_guess else ()):
        if all(diagnose(n) for n in quickest_first):
            return diagnose(clean[0])
    return None


def extra_rows(value: Tensor, expected: Tensor, axes: Axes) -> str | None:
    """Where the right numbers are all there, with more of them along one axis."""
    longer = [i for i, (a, b) in enumerate(zip(value.shape, expected.shape, strict=False)) if a != b]
    if (
        value.ndim != expected.ndim
        or value.is_complex() != expected.is_complex()
        or len(longer) != 1
        or value.shape[longer[0]] < expected.shape[longer[0]]
    ):
        return None
    i = longer[0]
    size, more = expected.shape[i], value.shape[i] - expected.shape[i]
    for start in dict.fromkeys((0, more, more // 2)):
        if agree(value.narrow(i, start, size), expected).all():
            where = "at the end" if start == 0 else "at the beginning" if start == more else "at both ends"
            axis = axis_names(expected, axes)[i]
            return f"`{axis}` has {more} too many, {where}; the other numbers are right. Do special tokens belong there?"
    return None


# ── where numbers are wrong, when nothing explains them ─────────────────────────────────────────────────────


def where_wrong(n: Numbers) -> str:
    """How many numbers are wrong, where, and the first of them with both values."""
    if n.expected.ndim == 0:
        return first_wrong(n)
    return f"{_region(n) or share(n.wrong) + ' wrong.'} {first_wrong(n)}"


def _region(n: Numbers) -> str | None:
    """Where the wrong (or the right) numbers are confined to the diagonal, one triangle, or a few rows."""
    if n.expected.ndim > 1 and n.expected.shape[-1] == n.expected.shape[-2]:
        rows, columns = n.axes[-2], n.axes[-1]
        if not n.wrong.tril().any():
            return (
                f"Only numbers with `{columns}` after `{rows}` are wrong, those that a causal mask takes out."
            )
        if not (n.wrong & ~torch.eye(n.wrong.shape[-1], dtype=torch.bool)).any():
            return f"Only the diagonal, where `{rows}` and `{columns}` are the same, is wrong."
    found: list[tuple[int, str]] = []
    for i, axis in enumerate(n.axes):
        others = tuple(j for j in range(n.wrong.ndim) if j != i)
        bad = n.wrong.any(others) if others else n.wrong
        for rows_, text in ((bad, "Right except at"), (~bad, "Wrong except at")):
            count = int(rows_.sum())
            if 0 < count <= max(1, rows_.numel() // 3) < rows_.numel() - 1:
                places = rows_.nonzero().flatten().tolist()
                shown = ", ".join(map(str, places[:5])) + (", ..." if count > 5 else "")
                found.append((count, f"{text} `{axis}` {shown}."))
    return min(found)[1] if found else None


def first_wrong(n: Numbers) -> str:
    """The first wrong entry, with both values."""
    if n.expected.ndim == 0:
        return f"Expected {number(n.expected.item())}, got {number(n.value.item())}."
    at = tuple(n.wrong.nonzero()[0].tolist())
    place = ", ".join(f"`{axis}` {i}" for axis, i in zip(n.axes, at, strict=True))
    return f"At {place}: expected {number(n.expected[at].item())}, got {number(n.value[at].item())}."
