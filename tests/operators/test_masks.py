"""The masks are the public fastMRI loader's, bit for bit: the expected bits below were drawn with fastMRI 0.3.0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.masks import (
    center_mask,
    draw_acceleration,
    equispaced_fraction_mask,
    equispaced_mask,
    file_seed,
    magic_fraction_mask,
    magic_mask,
    random_mask,
)

MaskFunction = Callable[..., np.ndarray]
KINDS: list[MaskFunction] = [random_mask, equispaced_fraction_mask, equispaced_mask, magic_mask, magic_fraction_mask]
PAIR = ((0.08, 0.04), (4, 8))

# (mask function, columns, center fractions, accelerations, file name, packed bits in hexadecimal)
KNOWN = [
    (random_mask, 368, (0.08,), (4,), "file1000001.h5",
     "131180011200a84000c020511008b00840000400a03ffffffe000054004804800024204000408440220600c22000"),
    (random_mask, 372, (0.04,), (8,), "file1001339.h5",
     "400020001022400000000400004800200000080000409fffe000024000000000100000000000c0000004a000142820"),
    (random_mask, 53, (0.1,), (3,), "a.h5", "601002f8e03000"),
    (random_mask, 320, *PAIR, "file1000031.h5",
     "00404c81820178008681044250282141d2105ffffffa8000205304e6800047048056908400069000"),
    (random_mask, 320, *PAIR, "file1000000.h5",
     "000000862202000000000400488000008000003ffe02000200000802388004400000000600008200"),
    (equispaced_fraction_mask, 368, (0.08,), (4,), "file1000001.h5",
     "1082104210421042084208420841084108210821083ffffffe210420842084108410841082108210821042104208"),
    (equispaced_fraction_mask, 372, (0.04,), (8,), "file1001339.h5",
     "801001002004004008010010020040040080100100201fffc008010010020040040080100100200400400801001000"),
    (equispaced_fraction_mask, 53, (0.1,), (3,), "a.h5", "889111fa222440"),
    (equispaced_fraction_mask, 320, *PAIR, "file1000031.h5",
     "2104208410821082104208410841082104209ffffff8821042104208410821082104208410841082"),
    (equispaced_fraction_mask, 320, *PAIR, "file1000000.h5",
     "002004004008010010020020040080080100203ffe40040080100100200400400800801002002004"),
    (equispaced_mask, 320, *PAIR, "file1000031.h5",
     "2222222222222222222222222222222222223ffffffa222222222222222222222222222222222222"),
    (equispaced_mask, 53, (0.1,), (3,), "a.h5", "924924fa492490"),
    (magic_mask, 320, *PAIR, "file1000031.h5",
     "1111111111111111111111111111111111111ffffff9111111111111111111111111111111111111"),
    (magic_mask, 53, (0.1,), (3,), "a.h5", "249249fa492490"),
    (magic_fraction_mask, 320, *PAIR, "file1000031.h5",
     "0410410410410410410410410410410410411ffffff9041041041041041041041041041041041041"),
    (magic_fraction_mask, 53, (0.1,), (3,), "a.h5", "111111f9111110"),
]  # fmt: skip


@pytest.mark.parametrize(("mask_function", "cols", "fractions", "accelerations", "name", "bits"), KNOWN)
def test_mask_is_bit_exact(
    mask_function: MaskFunction, cols: int, fractions: tuple, accelerations: tuple, name: str, bits: str
) -> None:
    generator = np.random.RandomState(file_seed(name))
    fraction, acceleration = draw_acceleration(fractions, accelerations, generator)
    mask = mask_function(cols, acceleration, fraction, generator)
    assert mask.dtype == bool and mask.shape == (cols,)
    assert np.packbits(mask).tobytes().hex() == bits
    if len(fractions) == 1:
        assert np.array_equal(mask, mask_function(cols, acceleration, fraction, file_seed(f"/data/val/{name}")))


def test_any_combination_is_bit_exact() -> None:
    drawn = [draw_acceleration((0.08, 0.04, 0.02), (4, 8), seed, any_combination=True) for seed in range(8)]
    expected = []
    for seed in range(8):  # fastMRI draws with `choice`, which uses the same numbers of the generator
        generator = np.random.RandomState(seed)
        expected.append((generator.choice([0.08, 0.04, 0.02]), generator.choice([4, 8])))
    assert drawn == expected


@pytest.mark.parametrize("mask_function", KINDS)
def test_global_generator_is_left_alone(mask_function: MaskFunction) -> None:
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    first = mask_function(180, 4, 24 / 180, 7)
    again = mask_function(180, 4, 24 / 180, 7)
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    assert np.array_equal(first, again)
    assert np.array_equal(before["state"]["key"], after["state"]["key"])
    assert before["state"]["pos"] == after["state"]["pos"]


@given(
    mask_function=st.sampled_from(KINDS),
    cols=st.integers(24, 500),
    acceleration=st.integers(2, 10),
    center_fraction=st.floats(0.01, 0.1),
    seed=st.integers(0, 2**32 - 1),
)
def test_centre_is_sampled(
    mask_function: MaskFunction, cols: int, acceleration: int, center_fraction: float, seed: int
) -> None:
    num_low = round(cols * center_fraction)
    if num_low * acceleration >= cols:
        return
    mask = mask_function(cols, acceleration, center_fraction, seed)
    assert mask[center_mask(cols, num_low)].all()
    assert num_low == 0 or mask[cols // 2]


def test_reached_acceleration() -> None:
    random = [368 / random_mask(368, 4, 0.08, seed).sum() for seed in range(200)]
    assert abs(1 / np.mean(1 / np.array(random)) - 4) < 0.1
    for seed in range(20):
        assert abs(368 / equispaced_fraction_mask(368, 4, 0.08, seed).sum() - 4) < 0.15
        assert abs(368 / equispaced_fraction_mask(368, 8, 0.04, seed).sum() - 8) < 0.3
        assert equispaced_mask(368, 4, 0.08, seed).sum() > 368 / 4
    assert random_mask(100, 1, 0.08, 3).all()
    assert random_mask(10, 1, 1.0, 3).all()


def test_offset_is_the_first_column() -> None:
    assert np.flatnonzero(equispaced_mask(320, 4, 0.04, 0, offset=3))[0] == 3
    assert np.flatnonzero(equispaced_fraction_mask(320, 8, 0.04, 0, offset=5))[0] == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: random_mask(0, 4, 0.08, 0), "cols is 0"),
        (lambda: random_mask(320, 0.5, 0.08, 0), "acceleration is 0.5"),
        (lambda: random_mask(320, float("nan"), 0.08, 0), "acceleration is nan"),
        (lambda: equispaced_mask(320, float("inf"), 0.08, 0), "acceleration is inf, expected"),
        (lambda: random_mask(320, 4, 1.08, 0), "center_fraction is 1.08"),
        (lambda: random_mask(320, 8, 0.2, 0), "64 central columns of 320 are more than acceleration 8 allows"),
        (lambda: equispaced_fraction_mask(320, 8, 0.125, 0), "40 central columns of 320 are all"),
        (lambda: equispaced_mask(320, 4.5, 0.04, 0), "expected a whole number"),
        (lambda: equispaced_mask(320, 4, 0.04, 0, offset=-1), "offset is -1"),
        (lambda: magic_fraction_mask(320, 4, 0.04, 0, offset=320), "offset is 320"),
        (lambda: draw_acceleration((0.08, 0.04), (4,), 0), "2 center fractions and 1 accelerations"),
        (lambda: draw_acceleration((), (), 0), "empty list"),
        (lambda: center_mask(4, 5), "5 central columns of 4"),
        (lambda: file_seed("/"), "no file name"),
    ],
)
def test_errors_say_what_is_wrong(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
