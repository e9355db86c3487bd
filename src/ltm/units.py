"""Tokens, bytes, seconds and FLOPs: parse what people write, print what people read.

Pure functions without state; the names of the units stand in the names of the variables everywhere else.
"""

from __future__ import annotations

import math
import re

_MULTIPLIERS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
# a comma only parts thousands: `10,5B` is no count, since half the world would read ten and a half
_COUNT = re.compile(
    r"^\s*((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9][0-9_]*)(?:\.[0-9]+)?(?:e[0-9]+)?)\s*([kmbgt]?)\s*$", re.IGNORECASE
)


def parse_count(text: str | int | float) -> int:
    """Return a whole number from `1500`, `"1.5k"`, `"25M"` or `"10B"`.

    Raises:
        ValueError: the text is not a count or has a fraction left.

    >>> parse_count("1.5k"), parse_count("25M"), parse_count(7)
    (1500, 25000000, 7)
    """
    if isinstance(text, bool):
        raise ValueError(f"not a count: {text!r}")
    if isinstance(text, int):
        return text
    if isinstance(text, float):
        if not text.is_integer():
            raise ValueError(f"not a whole number: {text!r}")
        return int(text)
    match = _COUNT.match(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"not a count: {text!r} (write 1500, 1.5k, 25M or 10B)")
    value = float(match[1].replace("_", "").replace(",", "")) * _MULTIPLIERS[match[2].lower()]
    if not math.isclose(value, round(value), rel_tol=0, abs_tol=1e-6):
        raise ValueError(f"not a whole number: {text!r}")
    return round(value)


def format_count(value: float) -> str:
    """Return a short count.

    >>> format_count(950), format_count(25_000_000), format_count(1_340_000_000)
    ('950', '25M', '1.34B')
    """
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def format_bytes(n_bytes: float) -> str:
    """Return a size in binary units.

    >>> format_bytes(512), format_bytes(3 * 1024**3)
    ('512 B', '3.0 GiB')
    """
    for size, name in ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if abs(n_bytes) >= size:
            return f"{n_bytes / size:.1f} {name}"
    return f"{n_bytes:.0f} B"


def format_seconds(seconds: float) -> str:
    """Return a duration with at most two units.

    >>> format_seconds(7.4), format_seconds(125), format_seconds(7_500), format_seconds(200_000)
    ('7.4 s', '2 min 5 s', '2 h 5 min', '2 d 8 h')
    """
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
