"""Time to deliver in fixed buckets, so that the times of any two groups can be added up; and what is read from them.

From when a message was due (`not_before`: quiet hours are no delay of the gateway's) to when its last word came to us. A border is the square root of two
times the one before: a percentile is said as the middle of its bucket, which is at most 19 % off (2 ** 0.25 = 1.189); under a second it is half a second,
and the last bucket has no end.
"""

from collections.abc import Mapping

# Seconds. Migration 0007 has the same in SQL; a test holds them together.
BORDERS = tuple(round(2 ** (step / 2), 3) for step in range(41))  # 1 s to 12 days
ERROR = 2**0.25 - 1


def seconds_of(bucket: int) -> float:
    """What stands for a bucket: its geometric middle."""
    if bucket <= 0:
        return 0.5
    return round(BORDERS[bucket - 1] * 2**0.25, 2)


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """The time within which this share of the messages was delivered, in seconds; None of nothing."""
    total = sum(counts.values())
    if total <= 0:
        return None
    wanted, passed = share * total, 0
    for bucket in sorted(counts):
        passed += counts[bucket]
        if passed >= wanted:
            return seconds_of(bucket)
    raise AssertionError
