"""The checks of lesson 04 on waves over the digits, and on the circle that they lie on."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from exercises_utils.challenges.sum_of_two_numbers.checks_setup import lesson_model, randn
from exercises_utils.checking import Call, Question, exercise


@exercise("A basis of waves", core=True, axes="wave x", atol=2e-5)
def fourier_basis(n, *, length="own", start=0, turns=1.0, order="pairs", sine=1, last="cos"):
    """From powers of a root of unity."""
    n_pairs, x = (n - 1) // 2, torch.arange(n, dtype=torch.float64) + start
    waves = torch.exp(2j * math.pi * turns / n * torch.outer(torch.arange(n // 2 + 1), x))
    constant, cosines, halves = waves.real.split([1, n_pairs, n // 2 - n_pairs])
    sines = sine * waves.imag[1 : n_pairs + 1]
    noise = (2 * torch.pi * (n // 2) * torch.arange(n) / n).sin().double().expand_as(halves)
    halves = {"zero": 0 * halves, "nan": math.nan * halves, "noise": noise}.get(last, halves)
    pairs, turned = (torch.stack(both, 1).flatten(0, 1) for both in ((cosines, sines), (sines, cosines)))
    middle = {"pairs": [pairs, halves], "turned": [turned, halves], "apart": [cosines, halves, sines]}[order]
    rows = torch.cat([constant, *middle, *{"and zero": [0 * halves], "and noise": [noise]}.get(last, [])])
    own = rows.norm(dim=1, keepdim=True)
    return (rows / {"own": own.where(own > 0, 1.0), "all": (n / 2) ** 0.5, None: 1}[length]).float()


fourier_basis.given([Call(f"n = {n}", {"n": n}) for n in (10, 7, 16, 5, 2, 1)])
ROWS = "frequency k is in rows 2k - 1 (cosine) and 2k (sine)."
SINE = "For even n the last row is cos n/2; sin n/2 is zero at every column."
fourier_basis.slips(
    {
        "The rows are not of length one: divide each by its norm.": dict(length=None),
        "All rows are scaled by sqrt(2/n); the constant and cos n/2 have other norms.": dict(length="all"),
        "x starts at 1; the first column is x = 0, where all cosines are largest.": dict(start=1),
        "The waves are half as fast: wave k makes k full turns, 2πkx/n.": dict(turns=0.5),
        "All cosines come first, then all sines; each sine follows its cosine.": dict(order="apart"),
        "Sines stand before cosines; the order is const, cos 1, sin 1, cos 2, …": dict(order="turned"),
        "The sines have the wrong sign: sin(2πkx/n) begins by rising.": dict(sine=-1),
        SINE: dict(last="zero"),
        f"{SINE} Dividing it by its norm gives NaN.": dict(last="nan"),
        f"{SINE} Yours is rounding noise, made large.": dict(last="noise"),
        f"{SINE} n rows are asked for.": dict(last="and zero"),
        f"{SINE} n rows are asked for; the last one is noise, made large.": dict(last="and noise"),
    }
)


def _matrices(more: str = "") -> list[Call]:
    """The digits' columns of W_U and random matrices, with one frequency each; `more` is for the names."""
    matrices = {"W_U, digits only": lesson_model.get().W_U[:, :10]}
    matrices |= {f"a random matrix with {n} columns": randn(n - 3, n, seed=n) + 0.5 for n in (7, 16, 10, 9)}
    given = zip(matrices.items(), (1, 2, 3, 5, 0), strict=True)
    return [Call(name + more.format(k), {"matrix": m, "frequency": k}) for (name, m), k in given]


@exercise("Which frequencies there are", core=True, axes="frequency", atol=1e-5)
def frequency_shares(
    matrix, *, over=1, centred=False, rows="together", root=False, half=False, parts="both", first=0, by="sum"
):
    """By the discrete Fourier transform."""
    matrix = matrix.T if over == 0 else matrix.mean(0, keepdim=True) if rows == "averaged" else matrix
    matrix = matrix.double() - matrix.double().mean(1, keepdim=True) * centred
    n, waves = matrix.shape[1], torch.fft.rfft(matrix)
    energy = torch.view_as_real(waves) ** 2  # (row, frequency, part)
    if not half:
        energy[:, 1 : (n + 1) // 2] *= 2
    energy = energy.sum(0, keepdim=True) if rows in ("together", "averaged") else energy
    each = energy.flatten(1)[:, [0, *range(2, n + 1)]]
    energy = energy[:, first:]
    whole = (
        energy.sum((1, 2)) if by == "sum" else energy.sum(2).amax(1) if by == "largest" else n * torch.ones(1)
    )
    energy = {"both": energy.sum(2), "cosines": energy[..., 0], "sines": energy[..., 1], "each": each}[parts]
    shares = energy / whole[:, None].to(energy)
    shares = shares.sqrt() / shares.sqrt().sum(1, keepdim=True) if root else shares
    return {"apart": shares, "averages": shares.mean(0)}.get(rows, shares[0]).float()


frequency_shares.given(_matrices)
frequency_shares.slips(
    {
        "These are shares of the amplitudes; square the coefficients first.": dict(root=True),
        "`rfft` has half of the spectrum: all frequencies but 0 and n/2 count twice.": dict(half=True),
        "These are sums of squares; divide by the matrix's whole sum of squares.": dict(by="n"),
        "Divide by the sum, not by the largest.": dict(by="largest"),
        "This is one row of shares for each row; add the squares of all rows first.": dict(rows="apart"),
        "This is the mean of the rows' own shares; add the squares first.": dict(rows="averages"),
        "This is the spectrum of the mean over rows; square first, then add.": dict(rows="averaged"),
        "These are shares of single waves; add those of each frequency.": dict(parts="each"),
        "Only the cosines are counted; add the sine of each frequency.": dict(parts="cosines"),
        "Only the sines are counted; add the cosine of each frequency.": dict(parts="sines"),
        "Frequency 0, the constant, is left out, also of the sum.": dict(first=1),
        "The rows were centred first, which takes frequency 0 away.": dict(centred=True),
        "The waves go over the rows; they go over the columns, the digits.": dict(over=0),
    }
)


@exercise("One frequency alone", core=False, axes="row digit")
def one_frequency(matrix, frequency, *, waves=lambda k: (2 * k - 1, 2 * k), others=False):
    """By the discrete Fourier transform there and back."""
    n, spectrum = matrix.shape[1], torch.view_as_real(torch.fft.rfft(matrix.double()))
    kept = torch.zeros_like(spectrum)
    for wave in waves(frequency):
        if 0 <= wave < n:  # a cosine is the real part, a sine the imaginary one
            at = (..., (wave + 1) // 2, int(wave > 0 and wave % 2 == 0))
            kept[at] = spectrum[at]
    return torch.fft.irfft(torch.view_as_complex(spectrum - kept if others else kept), n=n).to(matrix)


def _coefficients(matrix: Tensor, frequency: int) -> Tensor:
    every = matrix @ fourier_basis.truth(matrix.shape[1]).T
    return every[:, (torch.arange(every.shape[1]) + 1) // 2 == frequency]


one_frequency.given(lambda: _matrices(", frequency {}"))
one_frequency.slips(
    {
        "Everything but this frequency is kept; keep only this one.": dict(others=True),
        "These are coefficients, one for each wave; go back to the digits with the basis.": _coefficients,
        "Only the cosine is kept; the sine belongs to it.": dict(waves=lambda k: (max(2 * k - 1, 0),)),
        "Only the sine is kept; the cosine belongs to it.": dict(waves=lambda k: (2 * k,)),
        "The constant is kept as well.": dict(waves=lambda k: (0, 2 * k - 1, 2 * k)),
        "All frequencies up to this one are kept.": dict(waves=lambda k: range(2 * k + 1)),
        f"The rows are off by one: {ROWS}": dict(waves=lambda k: (2 * k, 2 * k + bool(k))),
        f"These are the rows k and k + 1: {ROWS}": dict(waves=lambda k: (k, k + 1)),
        f"These are the rows 2k - 2 and 2k - 1: {ROWS}": dict(waves=lambda k: (2 * k - 2, 2 * k - 1)),
    }
)


def _signs_fixed(coordinates: Tensor) -> Tensor:
    """Each of the two axes turned so that its cubes add up to more than 0: its sign is open."""
    over_digits = coordinates.pow(3).sum(-1 if coordinates.shape[0] == 2 else 0, keepdim=True)
    return coordinates * over_digits.sign()


@exercise("The circle of digits", core=False, axes="digit axis", reads=_signs_fixed)
def circle_of_digits(matrix, *, power=0.5, centred=False, axes=(-1, -2)):
    """By the eigenvectors of the digits' inner products."""
    matrix = matrix.double() - matrix.double().mean(1, keepdim=True) * centred
    values, vectors = torch.linalg.eigh(matrix.T @ matrix)
    all_axes = (vectors * values.clamp_min(0) ** power)[:, -min(matrix.shape) :]
    return all_axes[:, axes].to(torch.float32)


circle_of_digits.given(
    [
        Call(f"{n} random columns", {"matrix": randn(m, n, seed=m) + 0.5})
        for m, n in ((14, 10), (9, 7), (8, 12))
    ]
)
circle_of_digits.slips(
    {
        "These are right singular vectors; project the columns on the left ones.": dict(power=0),
        "The coordinates are multiplied by the singular values once too often.": dict(power=1),
        "These are the last two singular vectors; take the first two.": dict(axes=(0, 1)),
        "These are the last two singular vectors, in reverse; take the first two.": dict(axes=(1, 0)),
        "The columns were centred first; take them as they are.": dict(centred=True),
        "The two axes are in the other order: the larger singular value first.": dict(axes=(-2, -1)),
    }
)


def _blind() -> str:
    """By the wave of frequency 2 itself: which digits it gives the same two coordinates."""
    digits = torch.arange(10)
    wave = torch.exp(2j * math.pi * 2 * digits.double() / 10)
    others = {"a": (digits + 2) % 10, "b": (digits + 5) % 10, "c": 9 - digits}
    return next((letter for letter, other in others.items() if torch.allclose(wave, wave[other])), "d")


blind_frequency = Question(
    "blind_frequency",
    "What one frequency cannot see",
    core=False,
    options={
        "a": ("d and d + 2", "two digits further is 0.8π further, nearly half a turn."),
        "b": (
            "d and d + 5",
            "five digits further the wave is back where it was: frequency 2 tells the digits apart modulo 5 only.",
        ),
        "c": ("d and 9 - d", "9 - d goes round the other way; the two meet only at 2 and 7, five apart."),
        "d": ("none", "that holds for frequencies 1 and 3; but frequency 2 goes round twice in ten digits."),
    },
    answer=_blind,
)


@exercise("Logits as arrows on the circle", core=False, atol=1e-4)
def to_circle(logits, frequency, *, tokens=10, parts=(0, 1), sine=-1, power=0.5):
    """By the discrete Fourier transform."""
    spectrum = torch.view_as_real(torch.fft.fft(logits[..., :tokens].double()))
    n, signs = spectrum.shape[-2], torch.tensor([1, sine]).to(spectrum)
    return ((spectrum[..., frequency, :] * signs)[..., parts] / (n / 2) ** power).to(torch.float32)


def _other_rows(first: Callable[[int], int]) -> Callable[[Tensor, int], Tensor]:
    """With the two rows of the basis from this one on."""
    return lambda logits, k: logits[..., :10] @ fourier_basis.truth(10).to(logits)[first(k) : first(k) + 2].T


def _logits() -> list[Call]:
    calls = []
    for shape, k in (((6, 5, 12), 1), ((4, 12), 3), ((3, 4, 2, 13), 2), ((12,), 4), ((1, 3, 10), 2)):
        given, axes = (
            {"logits": randn(*shape, seed=k) + 0.5, "frequency": k},
            ["x", "y", "z"][: len(shape) - 1],
        )
        calls.append(Call(f"logits of shape {shape}, frequency {k}", given, axes=(*axes, "coordinate")))
    return calls


to_circle.given(_logits)
to_circle.slips(
    {
        'The logits of "+" and "=" are in it; take the first ten entries, the digits.': dict(tokens=None),
        "The sine stands first; the cosine is the first coordinate.": dict(parts=(1, 0)),
        "The sine has the wrong sign. `rfft` gives minus the sine.": dict(sine=1),
        "The waves are not of length one: use the rows of `fourier_basis(10)`.": dict(power=0),
        "The coordinates are divided by five; use the rows of `fourier_basis(10)`.": dict(power=1),
        f"The rows are off by one: {ROWS}": _other_rows(lambda k: 2 * k),
        f"These are the rows 2k - 2 and 2k - 1: {ROWS}": _other_rows(lambda k: 2 * k - 2),
        f"These are the rows k and k + 1: {ROWS}": _other_rows(lambda k: k),
    }
)
