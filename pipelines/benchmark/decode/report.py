"""The measurements of the decode suite become rows, tables and verdicts on its goals."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.benchmark.decode.stored import Psnr
from pipelines.benchmark.measuring.clips import BenchmarkClip
from pipelines.benchmark.measuring.peers import OURS
from pipelines.benchmark.measuring.rows import BenchmarkRow, Goal, SuiteReport, format_goals, quotient
from pipelines.runtime.text_table import format_table

_TORCHCODEC = ("torchcodec", "torchcodec, resize")
_UNIT = "samples/s"
_EXACT = "equal to the source"


@dataclass(frozen=True)
class StoredResult:
    """One encoding of a video: bytes, loss, and samples per second by decoder at even and odd starts."""

    encoding: str
    is_auto: bool
    num_bytes: int
    psnr: Psnr
    even: Mapping[str, float]
    odd: Mapping[str, float]

    @property
    def over_torchcodec(self) -> float | None:
        """Ours / the faster way of torchcodec, on the same bytes, at even starts."""
        return quotient(self.even.get(OURS), _torchcodec(self.even))


@dataclass(frozen=True)
class ClipResult:
    """One video: frames that differ from a full decode, samples per second by decoder, encodings, failures."""

    clip: BenchmarkClip
    num_compared: int
    num_unequal: int
    samples_per_second: Mapping[str, float]
    difference: Mapping[str, float]
    stored: Sequence[StoredResult]
    not_measured: Mapping[str, str]

    @property
    def name(self) -> str:
        """The file's name."""
        return self.clip.path.name

    @property
    def best_peer(self) -> str:
        """The fastest decoder except ours."""
        peers = {name: rate for name, rate in self.samples_per_second.items() if name != OURS}
        return max(peers, key=peers.__getitem__)

    def over_best_peer(self, rate: float | None) -> float | None:
        """`rate` / the rate of the best peer on the source."""
        return quotient(rate, self.samples_per_second[self.best_peer])

    @property
    def auto(self) -> StoredResult:
        """The encoding that `auto` chooses."""
        return next(stored for stored in self.stored if stored.is_auto)


def report_decoding(results: Sequence[ClipResult], left_out: Mapping[str, str]) -> SuiteReport:
    """The rows, and the tables and verdicts as text."""
    rows = [row for result in results for row in _rows(result)]
    rows += [_missing(name, "video", reason) for name, reason in left_out.items()]
    text = [*_source_table(results), "", *_stored_table(results), "", format_goals(_goals(results))]
    missing = [
        f"not measured: {row.case}, {row.metric}: {row.note}"
        for row in rows
        if row.value is None and row.note != _EXACT
    ]
    return SuiteReport(rows, "\n".join([*text, *dict.fromkeys(missing)]))


def _rows(result: ClipResult) -> Iterator[BenchmarkRow]:
    best, name = result.best_peer, result.name
    yield _row(name, "unequal_frames", OURS, result.num_unequal, "count")
    for case, level in result.difference.items():
        yield _row(name, "difference_to_plain_loop", case, level, "grey levels")
    for case, rate in result.samples_per_second.items():
        ratio = None if case == best else result.over_best_peer(rate)
        yield _row(name, "source", case, rate, _UNIT, baseline=None if case == best else best, ratio=ratio)
    for stored in result.stored:
        part = f"{stored.encoding}{' (auto)' if stored.is_auto else ''}"
        yield _row(name, f"{part} bytes", OURS, stored.num_bytes, "bytes", "source", _bytes_ratio(result, stored))
        for what, decibels in stored.psnr._asdict().items():
            if math.isinf(decibels):
                yield _row(name, f"{part} psnr {what}", OURS, None, "dB", note=_EXACT)
            else:
                yield _row(name, f"{part} psnr {what}", OURS, decibels, "dB")
        for parity, rates in (("even", stored.even), ("odd", stored.odd)):
            for case, rate in rates.items():
                ratio = result.over_best_peer(rate)
                yield _row(name, f"{part} {parity}", case, rate, _UNIT, f"{best}, source", ratio)
    for case, reason in result.not_measured.items():
        yield _missing(case, name, reason)


def _row(
    clip: str,
    metric: str,
    case: str,
    value: float | None,
    unit: str,
    baseline: str | None = None,
    ratio: float | None = None,
    note: str | None = None,
) -> BenchmarkRow:
    return BenchmarkRow("decode", case, f"{clip}/{metric}", value, unit, baseline, ratio, note)


def _missing(case: str, metric: str, reason: str) -> BenchmarkRow:
    return BenchmarkRow("decode", case, metric, None, _UNIT, note=reason)


def _bytes_ratio(result: ClipResult, stored: StoredResult) -> float:
    """How many times smaller than the source."""
    return result.clip.num_bytes / stored.num_bytes


def _source_table(results: Sequence[ClipResult]) -> list[str]:
    """Samples per second from the source, by decoder."""
    names = list(dict.fromkeys(name for result in results for name in result.samples_per_second))
    rows = [
        [
            result.name,
            result.clip.info.codec,
            result.clip.size_text,
            *(_number(result.samples_per_second.get(name)) for name in names),
            _number(result.over_best_peer(result.samples_per_second[OURS])),
            f"{result.num_compared - result.num_unequal} of {result.num_compared} frames",
        ]
        for result in results
    ]
    header = ["file", "codec", "size", *names, "x", "equal to a full decode"]
    return [
        "samples per core-second from the source (same places, same crops; x: ours / the best peer)",
        *format_table(header, rows, align="<<<" + ">" * len(names) + "><"),
    ]


def _stored_table(results: Sequence[ClipResult]) -> list[str]:
    """Bytes, loss and samples per second from each encoding."""
    header = ["file", "as", "bytes/src", "dB luma", "dB rgb", "ours even", "odd"]
    header += ["torchcodec even", "odd", "x source", "x same"]
    rows = []
    for result in results:
        for stored in result.stored:
            numbers = [
                1 / _bytes_ratio(result, stored),
                stored.psnr.luma,
                stored.psnr.rgb,
                stored.even.get(OURS),
                stored.odd.get(OURS),
                _torchcodec(stored.even),
                _torchcodec(stored.odd),
                result.over_best_peer(stored.even.get(OURS)),
                stored.over_torchcodec,
            ]
            rows.append([result.name, stored.encoding + "*" * stored.is_auto, *map(_number, numbers)])
    return [
        "samples per core-second from the segment in a shard (*: the choice of auto; x source: ours, even starts / the "
        "best peer on the source; x same: / torchcodec on the same bytes)",
        *format_table(header, rows, align="<<" + ">" * (len(header) - 2)),
    ]


def _torchcodec(rates: Mapping[str, float]) -> float | None:
    return max((rates[name] for name in _TORCHCODEC if name in rates), default=None)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _goals(results: Sequence[ClipResult]) -> list[Goal]:
    """The worst figure of each goal over the files that it is about."""
    ours = {result.name: result.over_best_peer(result.samples_per_second[OURS]) for result in results}
    h264 = [result for result in results if result.clip.info.codec == "h264"]
    small = [result for result in h264 if result.clip.size_text == "340x256"]
    large = [result for result in results if result.clip.size_text == "1280x720"]
    from_small, from_large = (
        [result.over_best_peer(result.auto.even.get(OURS)) for result in group] for group in (small, large)
    )
    copied = [result for result in results if result.auto.encoding == "copy"]
    recoded = [result for result in results if result.auto.encoding != "copy"]
    recoded_small = [result for result in recoded if result not in large]
    return [
        Goal("frames that differ from a full decode", sum(r.num_unequal for r in results), 0, True),
        _worst("source, every H.264 file: ours / best peer", [ours[r.name] for r in h264], 1.3),
        _worst("source, every file: ours / best peer", list(ours.values()), 1.0),
        _worst("shard (auto, even starts), 340x256 H.264: ours / best peer on the source", from_small, 4),
        _worst("shard (auto, even starts), 1280x720: ours / best peer on the source", from_large, 50),
        _worst(
            "shard (auto, re-encoded, even starts): ours / torchcodec, same bytes",
            [result.auto.over_torchcodec for result in recoded],
            1.5,
        ),
        _worst(
            "shard (auto, stream copies, even starts): ours / torchcodec, same bytes",
            [result.auto.over_torchcodec for result in copied],
            1.5,
        ),
        _worst("bytes / source, 1280x720", _sizes(large), 0.15, True),
        _worst("bytes / source, stream copies", _sizes(copied), 1.05, True),
        _worst("bytes / source, re-encoded small sources", _sizes(recoded_small), 1.15, True),
        _worst("PSNR (luma) of the choice of auto, dB", [result.auto.psnr.luma for result in results], 39),
    ]


def _sizes(results: Sequence[ClipResult]) -> list[float]:
    """Bytes of the choice of auto / bytes of the source."""
    return [1 / _bytes_ratio(result, result.auto) for result in results]


def _worst(text: str, figures: Sequence[float | None], limit: float, is_lower_better: bool = False) -> Goal:
    known = [figure for figure in figures if figure is not None]
    if not known or len(known) < len(figures):
        return Goal(text, None, limit, is_lower_better)
    return Goal(text, max(known) if is_lower_better else min(known), limit, is_lower_better)
