"""Numbers as people read them: durations and sizes."""

import math


def seconds_text(seconds: float) -> str:
    """A duration for people: ``"45 s"``, ``"3 min 20 s"``, ``"5 h 10 min"``."""
    if not math.isfinite(seconds):
        return "unknown"
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def bytes_text(count: float) -> str:
    """A size for people: ``"512 B"``, ``"3.4 MB"`` (decimal units, as disks are sold)."""
    if not math.isfinite(count):
        return "unknown"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
