"""The checks of lesson 04's first part: waves over the digits, and the circle that they lie on."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from exercises_utils.challenges.sum_of_two_numbers.checks_setup import LESSON, lesson_model
from exercises_utils.checking import Case, Check, Question


def _basis(n: int) -> Float[Tensor, "wave n"]:
    """From the discrete Fourier transform of the unit vectors."""
    transform = torch.fft.fft(torch.eye(n, dtype=torch.float64))
    rows = [transform[:, 0].real]
    for k in range(1, (n + 1) // 2):
        rows += [transform[:, k].real, -transform[:, k].imag]
    if n % 2 == 0:
        rows.append(transform[:, n // 2].real)
    return torch.stack([row / row.norm() for row in rows]).float()


def _waves(n: int, shift: int = 0, half: bool = False) -> Float[Tensor, "wave n"]:
    """The rows before they are normalised; from x = `shift`; with half the frequency."""
    x = (torch.arange(n) + shift) * (math.pi if half else 2 * math.pi) / n
    rows = [torch.ones(n)]
    for k in range(1, (n + 1) // 2):
        rows += [(k * x).cos(), (k * x).sin()]
    if n % 2 == 0:
        rows.append((n // 2 * x).cos())
    return torch.stack(rows)


def _fourier_basis_cases() -> list[Case]:
    cases = []
    for n in (10, 7, 12, 5, 2, 1):
        right, plain = _basis(n), _waves(n)
        even = n % 2 == 0
        n_pairs = (n - 1) // 2
        cosines, sines = range(1, 2 * n_pairs + 1, 2), range(2, 2 * n_pairs + 1, 2)
        last = [n - 1] if even else []
        sign = torch.ones(n, 1)
        sign[list(sines)] = -1
        swapped = [0, *(i for pair in zip(sines, cosines, strict=True) for i in pair), *last]
        mistakes: dict[str, Any] = {
            "The rows are not of length one: divide each by its norm.": plain,
            "All rows are scaled by sqrt(2/n), which is right for the waves that have a sine and a cosine; "
            "the constant row (and the last one, for even n) needs sqrt(1/n). Divide each row by its own norm.": (
                plain * (2 / n) ** 0.5
            ),
            "All rows are scaled by sqrt(1/n), which is right for the constant row only. Divide each row by its own "
            "norm.": plain / n**0.5,
            "The rows are divided by n; divide each by its own norm.": plain / n,
            "x starts at 1; the first column is x = 0, where every cosine is at its largest.": _normalised(
                _waves(n, shift=1)
            ),
            "The waves are half as fast as they should be: wave k makes k full turns over the n columns, 2πkx/n.": (
                _normalised(_waves(n, half=True))
            ),
            "Rows and columns are swapped: the waves are the rows.": right.T,
            "All cosines come first, then all sines; each sine follows its cosine: cos 1, sin 1, cos 2, sin 2, …": right[
                [0, *cosines, *last, *sines]
            ],
            "All cosines come first, then all sines, then the last cosine; each sine follows its cosine.": right[
                [0, *cosines, *sines, *last]
            ],
            "Sines stand before cosines; the order is const, cos 1, sin 1, cos 2, sin 2, …": right[swapped],
            "The sines have the wrong sign: sin(2πkx/n) begins by rising.": sign * right,
            "The constant row comes last; it is the first.": right.roll(-1, 0),
            "The constant row is missing.": right[1:],
        }
        if even:
            zero, nan = right.clone(), right.clone()
            zero[-1], nan[-1] = 0.0, math.nan
            message = "For even n the last row is cos n/2; sin n/2 is zero at every column."
            mistakes[message] = zero
            mistakes[message + " Dividing it by its norm gives NaN."] = nan
            mistakes["For even n the last row, cos n/2, is missing."] = right[:-1]
            mistakes["For even n there is no sin n/2: it is zero at every column. n rows are asked for."] = (
                torch.cat([right, torch.zeros(1, n)])
            )
            noisy = torch.cat([right, _normalised((math.pi * torch.arange(n)).sin()[None])])
            mistakes["There is no sin n/2 for even n: what came is rounding noise, made large."] = noisy
            in_place = right.clone()
            in_place[-1] = noisy[-1]
            mistakes["The last row is sin n/2, which is only rounding noise; for even n it is cos n/2."] = (
                in_place
            )
        cases.append(Case(f"n = {n}", (n,), right, axes=("wave", "x"), atol=2e-5, mistakes=mistakes))
    return cases


def _normalised(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


fourier_basis = Check(
    "fourier_basis",
    "A basis of waves",
    core=True,
    cases=_fourier_basis_cases,
    reference=_basis,
)


def _random_matrix(rows: int, columns: int, seed: int) -> Float[Tensor, "row digit"]:
    """Not centred, and with some waves stronger than others."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator) + 0.5
    wave = (torch.arange(columns) * 2 * math.pi / columns).cos()
    return matrix + torch.randn(rows, 1, generator=generator) * wave


def _W_U_digits() -> Float[Tensor, "d_model digit"]:
    return lesson_model.get().W_U[:, :10]


def _energies(matrix: Tensor, full: bool = True) -> Float[Tensor, "row frequency"]:
    """The sum of squares of each row at each frequency, by `rfft`; `full` counts both halves of the spectrum."""
    n = matrix.shape[-1]
    energy = torch.fft.rfft(matrix.double(), dim=-1).abs() ** 2 / n
    if full:
        energy[..., 1 : (n + 1) // 2] *= 2
    return energy


def _frequency_shares(matrix: Tensor) -> Float[Tensor, " frequency"]:
    energy = _energies(matrix).sum(0)
    return (energy / energy.sum()).float()


def _frequency_shares_cases() -> list[Case]:
    matrices = {
        f"W_U of {LESSON}, digits only": _W_U_digits(),
        "a random matrix with 7 columns": _random_matrix(9, 7, seed=1),
        "a random matrix with 12 columns": _random_matrix(6, 12, seed=2),
    }
    cases = []
    for name, matrix in matrices.items():
        n = matrix.shape[1]
        right, by_row = _frequency_shares(matrix), _energies(matrix)
        energy = by_row.sum(0)
        half = _energies(matrix, full=False).sum(0)
        waves = (matrix.double() @ _basis(n).double().T) ** 2
        amplitude = energy.sqrt()
        each = waves.sum(0)
        cosines = [0, *range(1, n, 2)]
        rfft_amplitude = torch.fft.rfft(matrix.double(), dim=-1).abs().sum(0)
        centred = matrix - matrix.mean(dim=1, keepdim=True)
        sines = [2 * k for k in range(1, (n + 1) // 2)]
        only_sines = torch.zeros_like(energy)
        only_sines[1 : (n + 1) // 2] = each[sines]
        cases.append(
            Case(
                name,
                (matrix,),
                right,
                axes=("frequency",),
                atol=1e-5,
                mistakes={
                    "These are shares of the amplitudes; square the coefficients first.": amplitude
                    / amplitude.sum(),
                    "These are amplitudes; square the coefficients first.": rfft_amplitude
                    / rfft_amplitude.sum(),
                    "`rfft` leaves out the other half of the spectrum: all frequencies but 0 and n/2 count twice.": half
                    / half.sum(),
                    "These are sums of squares; divide by the matrix's whole sum of squares.": energy,
                    "Squares of `rfft` are n times too large, and all but 0 and n/2 count twice; divide by their sum in "
                    "the end.": half * n,
                    "Divide by the sum, not by the largest.": energy / energy.max(),
                    "This is one row of shares for each row of the matrix; add the squares of all rows, then divide.": (
                        by_row / by_row.sum(-1, keepdim=True)
                    ),
                    "This is the mean of the rows' own shares; add the squares of all rows first, so that large rows "
                    "count more.": (by_row / by_row.sum(-1, keepdim=True)).mean(0),
                    "This is the spectrum of the mean over rows; waves of different rows cancel there. Square first, "
                    "then add.": _frequency_shares(matrix.mean(0, keepdim=True)),
                    "These are the shares of single waves; add the cosine's and the sine's of each frequency.": each
                    / each.sum(),
                    "Only the cosines are counted; add the sine of each frequency.": each[cosines]
                    / each.sum(),
                    "Only the cosines are counted; add the sine of each frequency, and divide by the whole.": (
                        each[cosines] / each[cosines].sum()
                    ),
                    "Only the sines are counted; add the cosine of each frequency.": only_sines / each.sum(),
                    "Frequency 0, the constant, is left out.": energy[1:] / energy.sum(),
                    "Frequency 0, the constant, is left out, also of the sum.": energy[1:] / energy[1:].sum(),
                    "The rows were centred first, which takes frequency 0 away; nothing is centred.": _frequency_shares(
                        centred
                    ),
                    "The waves go over the rows; they go over the columns, the digits.": _frequency_shares(
                        matrix.T
                    ),
                },
            )
        )
    return cases


frequency_shares = Check(
    "frequency_shares",
    "Which frequencies there are",
    core=True,
    cases=_frequency_shares_cases,
    reference=_frequency_shares,
)


def _one_frequency(matrix: Tensor, frequency: int) -> Float[Tensor, "row digit"]:
    spectrum = torch.fft.rfft(matrix.double(), dim=-1)
    kept = torch.zeros_like(spectrum)
    kept[:, frequency] = spectrum[:, frequency]
    return torch.fft.irfft(kept, n=matrix.shape[1], dim=-1).float()


def _one_frequency_cases() -> list[Case]:
    cases = []
    for name, matrix, frequency in (
        (f"W_U of {LESSON}, digits only", _W_U_digits(), 1),
        ("a random matrix with 12 columns", _random_matrix(6, 12, seed=3), 3),
        ("a random matrix with 7 columns", _random_matrix(9, 7, seed=4), 2),
        ("a random matrix with 10 columns", _random_matrix(5, 10, seed=5), 5),
        ("a random matrix with 9 columns", _random_matrix(5, 9, seed=6), 0),
    ):
        n = matrix.shape[1]
        right = _one_frequency(matrix, frequency)
        basis = _basis(n)
        coefficients = matrix @ basis.T

        def waves(*rows: int, coefficients: Tensor = coefficients, basis: Tensor = basis) -> Tensor:
            chosen = [row for row in rows if 0 <= row < len(basis)]
            return coefficients[:, chosen] @ basis[chosen]

        pair = [0] if frequency == 0 else [r for r in (2 * frequency - 1, 2 * frequency) if r < n]
        mistakes = {
            "Everything but this frequency is kept; keep only this one.": matrix - right,
            "These are coefficients, one for each wave; go back to the digits with the basis.": coefficients[
                :, pair
            ],
            "The coefficients outside the frequency are set to zero, and then not taken back to the digits: multiply "
            "by the basis.": torch.zeros_like(coefficients).index_copy(
                1, torch.tensor(pair), coefficients[:, pair]
            ),
        }
        if frequency and 2 * frequency < n:
            mistakes |= {
                "Only the cosine is kept; the sine of the same frequency belongs to it.": waves(
                    2 * frequency - 1
                ),
                "Only the sine is kept; the cosine of the same frequency belongs to it.": waves(
                    2 * frequency
                ),
                "The constant is kept as well; only this frequency is asked for.": waves(0, *pair),
                "All frequencies up to this one are kept; only this one is asked for.": waves(
                    *range(2 * frequency + 1)
                ),
                "The rows are off by one: frequency k is in rows 2k - 1 (cosine) and 2k (sine), after the constant in "
                "row 0.": waves(2 * frequency, 2 * frequency + 1),
                "These are the rows `frequency` and `frequency + 1` of the basis; frequency k is in rows 2k - 1 and "
                "2k.": waves(frequency, frequency + 1),
                "This is the frequency before: frequency k is in rows 2k - 1 and 2k, after the constant in row 0.": waves(
                    2 * frequency - 3, 2 * frequency - 2
                ),
            }
        elif frequency:
            mistakes |= {
                "For even n, frequency n/2 is one wave, the last row; another one is in it.": waves(
                    n - 2, n - 1
                ),
                "The constant is kept as well; only this frequency is asked for.": waves(0, n - 1),
                "All frequencies up to this one are kept; only this one is asked for.": matrix,
                "The rows are off by one: frequency k is in rows 2k - 1 (cosine) and 2k (sine), after the constant in "
                "row 0.": torch.zeros_like(right),
            }
        cases.append(
            Case(
                f"{name}, frequency {frequency}",
                (matrix, frequency),
                right,
                axes=("row", "digit"),
                mistakes=mistakes,
                atol=1e-4 * float(matrix.abs().max()),
            )
        )
    return cases


one_frequency = Check(
    "one_frequency",
    "One frequency alone",
    core=False,
    cases=_one_frequency_cases,
    reference=_one_frequency,
)


def _circle_of_digits(matrix: Tensor) -> Float[Tensor, "digit 2"]:
    """By the eigenvectors of the digits' inner products."""
    values, vectors = torch.linalg.eigh(matrix.double().T @ matrix.double())
    return (vectors[:, [-1, -2]] * values[[-1, -2]].clamp_min(0).sqrt()).float()


def _up_to_signs(value: Tensor, other: Tensor) -> bool:
    """Whether two answers agree in every axis, up to the sign of the whole axis."""
    if value.shape != other.shape:
        return False
    close = 2e-3 * float(other.abs().max())
    return all(
        min(float((value[:, i] - sign * other[:, i]).abs().max()) for sign in (1, -1)) < close
        for i in range(other.shape[1])
    )


def _circle_case(name: str, matrix: Tensor) -> Case:
    right = _circle_of_digits(matrix)
    _, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    scaled = Vh.T * S
    centred = matrix - matrix.mean(dim=1, keepdim=True)
    last = "These are the last two singular vectors; take the two with the largest singular values."
    wrong = [
        (
            "The vectors are not scaled by the singular values: these are right singular vectors. Project the columns on "
            "the left ones.",
            Vh[:2].T,
        ),
        (last, scaled[:, -2:]),
        (last, scaled[:, -2:].flip(1)),
        ("The columns were centred first; take them as they are.", _circle_of_digits(centred)),
        ("The two axes are in the other order: the larger singular value first.", right.flip(-1)),
        ("The coordinates are multiplied by the singular values once too often.", (scaled * S)[:, :2]),
    ]

    def refuse(value: Tensor) -> str | None:
        value = value.float()
        if _up_to_signs(value, right):
            return None
        for message, mistake in wrong:
            if _up_to_signs(value, mistake):
                return message
        if torch.allclose(value @ value.T, right @ right.T, atol=1e-3 * float(right.square().max())):
            return "The plane is right, but its axes are turned: the first is the direction of the largest singular value."
        return (
            "These are not the coordinates of the columns on the two leading left singular vectors, `U[:, :2]` of "
            "`torch.linalg.svd(matrix)`. One row for each digit."
        )

    return Case(name, (matrix,), right, axes=("digit", "axis"), requires=refuse)


def _circle_cases() -> list[Case]:
    return [
        _circle_case("a random matrix with 10 columns", _random_matrix(14, 10, seed=7)),
        _circle_case("a random matrix with 7 columns", _random_matrix(5, 7, seed=8)),
        _circle_case(f"W_U of {LESSON}, digits only", _W_U_digits()),
    ]


circle_of_digits = Check(
    "circle_of_digits",
    "The circle of digits",
    core=False,
    cases=_circle_cases,
    reference=_circle_of_digits,
)


def _blind() -> str:
    """By the wave of frequency 2 itself: which digits it gives the same two coordinates."""
    angle = 2 * math.pi * 2 * torch.arange(10, dtype=torch.float64) / 10
    points = torch.stack([angle.cos(), angle.sin()], dim=-1)
    digits = torch.arange(10)
    others = {"a": (digits + 2) % 10, "b": (digits + 5) % 10, "c": 9 - digits}
    blind = [letter for letter, other in others.items() if torch.allclose(points, points[other])]
    return blind[0] if blind else "d"


blind_frequency = Question(
    "blind_frequency",
    "What one frequency cannot see",
    core=False,
    options={
        "a": (
            "d and d + 2",
            "the angle of a digit is 2 · 2πd/10; two digits further is 0.8π further, nearly half a turn.",
        ),
        "b": (
            "d and d + 5",
            "five digits further the wave of frequency 2 has made 2 · 5/10 = one full turn and is back where it was. So "
            "frequency 2 tells apart the digits modulo 5 only.",
        ),
        "c": (
            "d and 9 - d",
            "9 - d goes round the circle in the other direction; the two meet only where they are five apart, at 2 and 7.",
        ),
        "d": (
            "none: cosine and sine together tell all ten apart",
            "that holds for frequency 1 and 3, which have no factor in common with 10; frequency 2 goes round twice.",
        ),
    },
    answer=_blind,
)


def _to_circle(logits: Tensor, frequency: int) -> Float[Tensor, "... 2"]:
    spectrum = torch.fft.fft(logits[..., :10].double(), dim=-1)[..., frequency]
    return torch.stack([spectrum.real, -spectrum.imag], dim=-1).float() / 5**0.5


def _to_circle_cases() -> list[Case]:
    cases = []
    for shape, frequency in (((6, 5, 12), 1), ((4, 12), 3), ((3, 4, 2, 13), 2), ((12,), 4)):
        logits = torch.randn(*shape, generator=torch.Generator().manual_seed(frequency)) + 0.5
        right = _to_circle(logits, frequency)
        n = shape[-1]
        x = torch.arange(n) * 2 * math.pi * frequency / n
        every = torch.stack([logits @ x.cos(), logits @ x.sin()], dim=-1) * (2 / n) ** 0.5
        basis = _basis(10)
        digits = logits[..., :10]
        before = 2 * frequency - 2
        cases.append(
            Case(
                f"logits of shape {shape}, frequency {frequency}",
                (logits, frequency),
                right,
                axes=(*(f"axis {i}" for i in range(len(shape) - 1)), "coordinate"),
                atol=1e-4,
                mistakes={
                    'The logits of "+" and "=" are in it; take the first ten entries, the digits.': every,
                    "The sine stands first; the cosine is the first coordinate.": right.flip(-1),
                    "The sine has the wrong sign. `rfft` gives minus the sine.": right
                    * torch.tensor([1.0, -1.0]),
                    "The waves are not of length one: use the rows of `fourier_basis(10)`.": right * 5**0.5,
                    "The coordinates are divided by ten, or by five; use the rows of `fourier_basis(10)`, of length "
                    "one.": right / 5**0.5,
                    "The rows are off by one: frequency f is in rows 2f - 1 (cosine) and 2f (sine), after the constant.": (
                        digits @ basis[[2 * frequency, 2 * frequency + 1]].T
                    ),
                    "These are the rows 2f - 2 and 2f - 1; the constant is row 0, so frequency f is in rows 2f - 1 and "
                    "2f.": digits @ basis[[before, before + 1]].T,
                    "This is always frequency 1; use the argument `frequency`.": _to_circle(logits, 1),
                },
            )
        )
    return cases


to_circle = Check(
    "to_circle",
    "Logits as arrows on the circle",
    core=False,
    cases=_to_circle_cases,
    reference=_to_circle,
)
