"""Rates of a network, in bits a second: `300M`, `1G`, `2.5G`; K, M and G are powers of 1000, as NICs have them."""

from __future__ import annotations

import re

from unitfleet.problems import BadValue

_RATE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?([KMG]?)", re.ASCII)
_BYTES = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([KMG]i?)B(?:/s|ps)?", re.ASCII | re.IGNORECASE)
_BITS = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([KMG]?) ?(?:bits?|b)?(?:/s|ps)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}

MOST = 10**13
"""10 Tbit/s: whoever writes more has slipped."""


def rate(text: str) -> int:
    """Read bits a second: a number, or one with K, M or G. Raises `BadValue`, which gives the right form.

    >>> rate("2.5G")
    2500000000
    """
    word = text.strip()
    match = _RATE.fullmatch(word)
    if match is None:
        raise BadValue(_refusal(word))
    unit = _UNITS[match[3]]
    fraction = match[2] or ""
    bits = int(match[1]) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
    if bits < 1:
        raise BadValue(f"{word!r} is no rate: it lets nothing through; write bits a second, as in 300M, 1G")
    if bits > MOST:
        raise BadValue(f"{word!r} is too high a rate: at most {rate_text(MOST)} bits a second")
    return bits


def rate_text(bits: int) -> str:
    """Write bits a second as `rate` reads them, rounded to three decimals of the largest unit that fits.

    >>> rate_text(2_500_000_000), rate_text(300_000_000), rate_text(0)
    ('2.5G', '300M', '0')
    """
    for letter, unit in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if round(bits / unit, 3) >= 1:
            return f"{round(bits / unit, 3):.3f}".rstrip("0").rstrip(".") + letter
    return str(bits)


def _refusal(word: str) -> str:
    shown = repr(word[:40])
    if word.startswith("-"):
        return f"{shown} is no rate: it is negative; write bits a second, as in 300M, 1G"
    if (of_bytes := _BYTES.fullmatch(word)) is not None and not word.endswith("b"):
        base = 1024 if "i" in of_bytes[2].lower() else 1000
        power = "KMG".index(of_bytes[2][0].upper()) + 1
        bits = round(float(of_bytes[1]) * base**power) * 8
        return f"{shown} is bytes, rates are bits a second: write {rate_text(bits)}"
    if (of_bits := _BITS.fullmatch(word)) is not None:
        return f"{shown} is no rate: write {of_bits[1]}{of_bits[2].upper()}, in bits a second"
    return f"{shown} is no rate: write bits a second, as in 500K, 300M, 2.5G"
