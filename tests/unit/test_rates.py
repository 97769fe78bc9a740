"""Rates: bits a second, K, M and G to the base of 1000, and no bytes."""

from __future__ import annotations

import pytest

from unitfleet.problems import BadValue
from unitfleet.rates import rate, rate_text


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("1", 1),
        ("64000", 64_000),
        ("500K", 500_000),
        ("300M", 300_000_000),
        ("1G", 10**9),
        ("2.5G", 2_500_000_000),
        ("0.5M", 500_000),
        (" 10M ", 10_000_000),
    ],
)
def test_a_rate_is_bits_a_second(text: str, bits: int) -> None:
    assert rate(text) == bits


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("10MB", "write 80M"),
        ("1.5GB/s", "write 12G"),
        ("1KiB", "write 8.192K"),
        ("10m", "write 10M"),
        ("10mbit", "write 10M"),
        ("10 Mbit/s", "write 10M"),
        ("10Mb", "write 10M"),
        ("0", "300M"),
        ("0M", "300M"),
        ("0.0000001K", "300M"),
        ("-5M", "negative"),
        ("", "500K"),
        ("fast", "500K"),
        ("1T", "500K"),
        ("1e9", "500K"),
        ("\u0661M", "500K"),
        ("11000G", "at most 10000G"),
    ],
)
def test_what_is_no_rate_is_refused_with_the_right_form(text: str, right: str) -> None:
    with pytest.raises(BadValue, match=right.replace(".", r"\.")):
        rate(text)


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (999_400, "999.4K"),
        (999_999, "1M"),
        (999_999_999, "1G"),
        (300_000_000, "300M"),
        (1_000_000_000, "1G"),
        (2_500_000_000, "2.5G"),
        (10_000_000_000, "10G"),
        (47_312_345, "47.312M"),
    ],
)
def test_a_rate_is_written_in_the_largest_unit_that_fits(bits: int, text: str) -> None:
    assert rate_text(bits) == text


def test_what_is_written_is_read_back() -> None:
    for bits in (1, 64_000, 300_000_000, 2_500_000_000, 10**10):
        assert rate(rate_text(bits)) == bits
