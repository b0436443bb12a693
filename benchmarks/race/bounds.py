"""The clairvoyant lower bound: no client, whatever it knows, can be done earlier.

Owns the arithmetic of the bound and its proof. Must never contain clients,
clocks, HTTP, the limiter's arithmetic, charge rules.

The race ends, for every client, at its *finish*: all its answers are there and no
bucket of the server is in debt. (A server that settles to the usage lets a client
overdraw: flood it at the end, and a minute's worth of answers is still unpaid when the
last of them arrives. The next client pays for that. So a client that
is in debt finishes when the debt has dripped off.)

Let job i arrive at a(i) and be under way for `there` seconds at least. Let it take c(i)
of a bucket when it is admitted, and have taken w(i) for good once it is settled; let
its answer arrive h(i) seconds after its admission at the earliest. The bucket holds B,
refills at r a second, and held L when the first request reached it, which is not before
a(first) + there. Consider the jobs j, j+1, ... in the order of arrival. None of them
takes anything before x = a(j) + there. Let M be the level at x and all that earlier
jobs, admitted before x, are still given back later. Counted from the start M is at most
L + r * (a(j) - a(first)), since what is taken for good is not negative; and a level is
at most B, so M is at most B + the sum of max(0, c - w) over the jobs before j. From x
on the bucket refills by r at most, nothing at all while it is full, so

    level(t)  <=  M + r * (t - x) - (what jobs j, j+1, ... have taken until t)   (1)

for t >= x.

*All is paid for.* At the finish T each of them has taken w(i) and the level is not
below zero. With (1):

    T  >=  x + (sum of w(i) - M) / r

*All is admitted.* Let l be the job of j, j+1, ... that is admitted last, at t. At t it
holds c(l), and each of the rest has taken c(i), or w(i) if it is settled already, so
at least min(c(i), w(i)); and admission left the level at zero or above. With (1), since
its answer takes h(l):

    T  >=  x + (sum of min(c, w) over the rest + c(l) - M) / r + h(l)

for that l, so at least for the l for which this is least.

*Each one takes its time.*  T >= a(i) + there + h(i) for every i.

The bound is the largest of all of these over all j and all buckets. In the long run the
first part decides, where arrivals are slower than the limits the last. What it leaves
out (whole calls only, who may be admitted together, other buckets at the same moment,
another tenant, a cap on calls in flight) could only make it later: it is a true lower
bound, and near: on work that saturates the limits an honest client comes within a few
per cent.

A window that forgets everything when its time is over (variants E and M) forgets debts
as well, so only the second and third part hold. Taking more than it holds at x needs
the start of at least ceil((taken - held) / B) further windows. They start every
`period` seconds, counted from the moment at which the first request reached the server;
for j > first the next one may start right away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

RESIDUE = 1e-6
"""What the server forgives, in units: a job that misses a bucket by rounding is
admitted.
"""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one job takes of one bucket, in its unit: at admission, and for good."""

    admitted: float
    settled: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """One limit of the server: `limit` units in `period` seconds.

    `level`: how full it is at the start, 0 to 1. `fixed`: a fixed window.
    """

    name: str
    limit: float
    period: float
    level: float = 1.0
    fixed: bool = False


def bound(
    arrivals: Sequence[float],
    demands: Sequence[Demand],
    bucket: Bucket,
    *,
    there: float = 0.0,
    tails: Sequence[float] = (),
) -> float:
    """Return the least seconds from the first arrival to the finish on this bucket.

    See above for the proof.

    :param arrivals: seconds, in order, the first at 0.
    :param demands: of each job on this bucket.
    :param there: least seconds from client to server.
    :param tails: least seconds from each job's admission to its answer; none: 0.
    """
    tails = tails or [0.0] * len(arrivals)
    rate = bucket.limit / bucket.period
    least = max(arrival + there + tail for arrival, tail in zip(arrivals, tails, strict=True))
    settled = _suffix_sums([demand.settled for demand in demands])
    lower = [min(demand.admitted, demand.settled) for demand in demands]
    lowest = _suffix_sums(lower)
    last = _suffix_minima(
        [
            (demand.admitted - low) / rate + tail
            for demand, low, tail in zip(demands, lower, tails, strict=True)
        ]
    )
    # of the jobs before each
    refunds = [0.0, *accumulate(max(0.0, demand.admitted - demand.settled) for demand in demands)]
    shortest = _suffix_minima(tails)
    for job, arrival in enumerate(arrivals):
        start = arrival + there
        if bucket.fixed:
            held = bucket.limit * (bucket.level if arrival < bucket.period else 1.0)
            windows = math.ceil((lowest[job] - held) / bucket.limit - RESIDUE)
            if windows > 0:
                least = max(
                    least, start + (windows - (arrival > 0)) * bucket.period + shortest[job]
                )
            continue
        held = (
            min(bucket.limit + refunds[job], bucket.level * bucket.limit + rate * arrival) + RESIDUE
        )
        least = max(
            least,
            start + (settled[job] - held) / rate,
            start + (lowest[job] - held) / rate + last[job],
        )
    return least


def _suffix_sums(values: Sequence[float]) -> list[float]:
    return list(accumulate(reversed(values)))[::-1]


def _suffix_minima(values: Sequence[float]) -> list[float]:
    return list(accumulate(reversed(values), min))[::-1]
