"""Population based training: after every interval the worst take over from the best (Jaderberg et al. 2017).

All members of a population wait for the slowest one. So the result depends on the recipe alone, however many trials run
at once and however often the search is killed. (Ray Tune's own scheduler compares only the members that have reported
so far, and keeps them in memory.) The trials of each seed form a separate population.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipelines.search.config import SearchConfig
from pipelines.search.ledger import TrialRecord
from pipelines.search.space import perturbed_point


class Heir(NamedTuple):
    """A member as it begins an interval, and the one whose weights it takes; None if it keeps its own."""

    record: TrialRecord
    donor: TrialRecord | None


def next_interval(members: Sequence[TrialRecord], config: SearchConfig, *, seed: int) -> list[Heir]:
    """The members of one population as they begin their next interval, in their order.

    Args:
        members: all that wait, with a score for each interval that they have finished.
        config: the search.
        seed: that of the members.
    """
    number = len(members[0].scores)
    rng = np.random.default_rng([config.sampler.seed, seed, number])
    ranked = sorted(members, key=lambda member: _badness(member, config))
    num_replaced = min(math.ceil(len(ranked) * config.scheduler.share_replaced), len(ranked) // 2)
    best, worst = ranked[:num_replaced], ranked[len(ranked) - num_replaced :]
    heirs = {member.name: Heir(replace(member, state="begun"), None) for member in members}
    for member in worst:
        donor = best[int(rng.integers(len(best)))]
        point = perturbed_point(config.space, donor.current, rng, share_drawn=config.scheduler.share_drawn)
        if _badness(donor, config) < _badness(member, config):
            donors = (*member.donors, f"{donor.name}@{number * config.scheduler.interval_epochs}")
            heirs[member.name] = Heir(replace(member, state="begun", changed=point, donors=donors), donor)
    return list(heirs.values())


def _badness(member: TrialRecord, config: SearchConfig) -> float:
    """Less is better; NaN comes last."""
    score = member.scores[-1]
    if math.isnan(score):
        return math.inf
    return -score if config.is_more_better() else score
