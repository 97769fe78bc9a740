"""Amounts of resources in few characters: `0.4/2/4` is used, reserved and there is; `-` is not known."""

from __future__ import annotations

from collections.abc import Callable

from unitfleet.rates import rate_text

SHARES = "resources are used/reserved/capacity, rates in bit/s"
"""What a table of shares has to say once."""


def cores(count: float) -> str:
    """Cores: 0.04, 2.5, 16."""
    return f"{count:.2f}" if 0 < count < 0.1 else f"{count:.1f}".removesuffix(".0")


def small(count: int) -> str:
    """Bytes to the base of 1024, as unit files have them: 512M, 1.5G."""
    value, unit = float(count), ""
    for larger in ("K", "M", "G", "T"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f}{unit}" if value >= 10 else f"{value:.1f}".removesuffix(".0") + unit


def rate(bits: int) -> str:
    """Bits a second to three figures: 1.25G, 300M, 48.2K."""
    if bits < 1000:
        return str(bits)
    unit = next(size for size in (10**9, 10**6, 10**3) if bits >= size)
    step = max(1, unit // (100 if bits < 10 * unit else 10 if bits < 100 * unit else 1))
    return rate_text(round(bits / step) * step)


def shares(used: float, reserved: float, whole: float, write: Callable[[int], str]) -> str:
    """Used / reserved / capacity of one resource."""
    parts = (write(int(used)), write(int(reserved)), write(int(whole)) if whole else "-")
    return "/".join(parts)


def core_shares(used: float, reserved: float, whole: float) -> str:
    """Used / reserved / capacity in cores."""
    return f"{cores(used)}/{cores(reserved)}/{cores(whole) if whole else '-'}"


def known_rate(bits: int) -> str:
    """A rate, "" for one that the machine can't tell."""
    return rate(bits) if bits >= 0 else ""
