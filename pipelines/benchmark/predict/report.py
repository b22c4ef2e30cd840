"""The rounds of the predict suite become rows and verdicts on goals."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from pipelines.benchmark.measuring.rows import BenchmarkRow, Goal
from pipelines.benchmark.predict.commands import CASES, HUGGING_FACE, LOOPS, OUR_CASES, OURS, SERVED
from pipelines.benchmark.predict.networks import NetworkCost
from pipelines.benchmark.predict.serving import NUM_CLIENTS, ServerFigures
from pipelines.benchmark.predict.watching import Watched

_MAX_FIRST_SECONDS, _MIN_SHARE, _MIN_OVER_LOOP = 8.0, 0.90, 1.0
_MAX_REQUEST, _MIN_CLIENTS, _MAX_GROWTH = 1.3, 0.90, 1.05
_row = partial(BenchmarkRow, "predict")


class Ceilings(NamedTuple):
    """Clips a second of decoding without a network, and of the network without decoding, each on all cores."""

    decoding: float
    network: float

    @property
    def slower(self) -> float:
        """The one that limits."""
        return min(self.decoding, self.network)

    @property
    def shared(self) -> float:
        """What is possible where both are work of the same cores, which never wait."""
        return 1 / (1 / self.decoding + 1 / self.network)


class Round(NamedTuple):
    """One round: the cases that ran, and the ceilings."""

    of_case: Mapping[str, Watched]
    ceilings: Ceilings


class _Metric(NamedTuple):
    """A figure of a case."""

    name: str
    unit: str
    value_of: Callable[[Watched], float]
    is_lower_better: bool

    def median(self, rounds: Sequence[Round], case: str) -> float:
        return statistics.median(self.value_of(each.of_case[case]) for each in rounds)

    def times_better(self, rounds: Sequence[Round], case: str, baseline: str) -> float:
        """The median over the rounds."""
        ratios = [self.value_of(each.of_case[case]) / self.value_of(each.of_case[baseline]) for each in rounds]
        return statistics.median(1 / ratio if self.is_lower_better else ratio for ratio in ratios)


_FIRST = _Metric("first_answer", "s", lambda watched: watched.first_seconds, True)
_CLIPS = _Metric("clips_per_second", "clips/s", lambda watched: watched.clips_per_second, False)
_METRICS = (
    _FIRST,
    _Metric("videos_per_second", "videos/s", lambda watched: watched.videos_per_second, False),
    _CLIPS,
    _Metric("peak_memory", "MB", lambda watched: watched.peak_bytes / 1e6, True),
)
_CEILINGS: Mapping[str, Callable[[Ceilings], float]] = {
    "ceiling, decoding": lambda ceilings: ceilings.decoding,
    "ceiling, network": lambda ceilings: ceilings.network,
    "ceiling, slower": lambda ceilings: ceilings.slower,
    "ceiling, shared cores": lambda ceilings: ceilings.shared,
}


def make_rows(
    rounds: Sequence[Round],
    cost_of: Mapping[str, NetworkCost],
    failures: Mapping[str, str],
    *,
    num_frames: int,
) -> Iterator[BenchmarkRow]:
    """The rows of all cases and ceilings; ratios are to the first plain loop that ran.

    Args:
        rounds: what was measured.
        cost_of: what the network of each case costs.
        failures: case -> why it did not run.
        num_frames: of a clip.
    """
    cases = [case for case in CASES if case not in failures]
    baseline = next((case for case in LOOPS if case in cases), None)
    for metric in _METRICS:
        for case in cases:
            value = metric.median(rounds, case)
            if baseline in (None, case):
                yield _row(case, metric.name, value, metric.unit)
            else:
                yield _row(case, metric.name, value, metric.unit, baseline, metric.times_better(rounds, case, baseline))
        for case in (case for case in CASES if case in failures):
            yield _row(case, metric.name, None, metric.unit, note=failures[case])
    for name, of in _CEILINGS.items():
        value = statistics.median(of(each.ceilings) for each in rounds)
        yield _row(name, _CLIPS.name, value, _CLIPS.unit, note="limit")
    for case in OUR_CASES:
        if case in cases:
            for name, of in _CEILINGS.items():
                yield _row(case, f"share_of_{name}", 100 * _share(rounds, case, of), "%", note="of its clips/s")
    yield from _exact_rows(rounds, cost_of, cases, num_frames=num_frames)


def make_goals(rounds: Sequence[Round], failures: Mapping[str, str]) -> Iterator[Goal]:
    """The goals of our cases; one that did not run has no figure."""
    ran = [case for case in CASES if case not in failures]
    first = _FIRST.median(rounds, OURS) if OURS in ran else None
    yield Goal(f"{OURS}: seconds to the first answer", first, _MAX_FIRST_SECONDS, True)
    for case in OUR_CASES:
        share = _share(rounds, case, lambda ceilings: ceilings.slower) if case in ran else None
        yield Goal(f"{case}: clips/s / the slower ceiling", share, _MIN_SHARE)
    for case in OUR_CASES:
        for loop in LOOPS:
            over = _CLIPS.times_better(rounds, case, loop) if {case, loop} <= set(ran) else None
            yield Goal(f"{case}: clips/s / {loop}", over, _MIN_OVER_LOOP)


def server_rows(served: ServerFigures | None, failures: Mapping[str, str]) -> Iterator[BenchmarkRow]:
    """The rows of the server; none if it was left out."""
    if SERVED in failures:
        yield _row(SERVED, _CLIPS.name, None, _CLIPS.unit, note=failures[SERVED])
    if served is None:
        return
    note = f"{NUM_CLIENTS} clients"
    yield _row(SERVED, "request_over_plain_call", statistics.median(served.over_plain), "times", note="one client")
    yield _row(SERVED, _CLIPS.name, served.clips_per_second, _CLIPS.unit, note=note)
    yield _row(SERVED, "memory_early", served.memory.early_bytes / 1e6, "MB", note="small network")
    yield _row(SERVED, "memory_late", served.memory.late_bytes / 1e6, "MB", note="small network")


def server_goals(served: ServerFigures | None, rounds: Sequence[Round]) -> Iterator[Goal]:
    """The goals of the server, compared with the faster of our two cases."""
    over_plain = statistics.median(served.over_plain) if served else None
    yield Goal(f"{SERVED}: seconds of a request / of the plain call", over_plain, _MAX_REQUEST, True)
    ran = [case for case in OUR_CASES if all(case in each.of_case for each in rounds)]
    over_batch = served.clips_per_second / max(_CLIPS.median(rounds, case) for case in ran) if served and ran else None
    yield Goal(f"{SERVED}: clips/s of {NUM_CLIENTS} clients / prediction", over_batch, _MIN_CLIENTS)
    growth = served.memory.late_bytes / served.memory.early_bytes if served else None
    yield Goal(f"{SERVED}: memory after all requests / after a tenth", growth, _MAX_GROWTH, True)


def _share(rounds: Sequence[Round], case: str, of: Callable[[Ceilings], float]) -> float:
    """Clips a second of a case / a ceiling of the same round, the median over the rounds."""
    return statistics.median(_CLIPS.value_of(each.of_case[case]) / of(each.ceilings) for each in rounds)


def _exact_rows(
    rounds: Sequence[Round], cost_of: Mapping[str, NetworkCost], cases: Sequence[str], *, num_frames: int
) -> Iterator[BenchmarkRow]:
    for case in cases:
        answers = rounds[0].of_case[case].answers
        clips = sum(answer.num_clips for answer in answers) / len(answers)
        note = "the first ones of the video" if case == HUGGING_FACE else "of clips side by side"
        yield _row(case, "frames_a_video", clips * num_frames, "frames", note=note)
    for case in cases:
        yield _row(case, "gmac_a_clip", cost_of[case].macs / 1e9, "GMAC", note="exact")
    for case in cases:
        yield _row(case, "parameters", cost_of[case].num_parameters / 1e6, "million", note="exact")
