"""The pages: links lead somewhere, commands are taken by their jobs, pictures are few and small, README is short."""

import functools
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import REPO, committed

EVIDENCE = Path("jobs/results/evidence.md")
KEPT_RESULTS = Path("tests/golden/evidence")
MAX_KEPT_BYTES = 50_000
MAX_README_LINES = 150
MAX_PICTURES = 8
MAX_PICTURE_BYTES = 100_000
PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp"}
FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """Every Markdown page, as a path from the root."""
    return sorted(path for path in committed() if path.suffix == ".md")


def text_of(page: Path) -> str:
    return (REPO / page).read_text()


# ---- links


def links_in(markdown: str) -> list[str]:
    """The targets of its links and pictures, but for those in code."""
    prose = re.sub(r"`[^`\n]*`", "code", FENCED.sub("", markdown))
    return re.findall(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)", prose)


def anchors_of(markdown: str) -> set[str]:
    """What GitHub calls its headings: lower case, no punctuation, hyphens for blanks, numbers for repetitions."""
    anchors: list[str] = []
    for heading in re.findall(r"^#+ +(.*?)#* *$", FENCED.sub("", markdown), re.MULTILINE):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        repeated = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other) is not None for other in anchors)
        anchors.append(f"{anchor}-{repeated}" if repeated else anchor)
    return set(anchors)


def broken_links(page: Path) -> Iterator[str]:
    tracked = set(committed())
    for link in links_in(text_of(page)):
        if re.match(r"[a-z][a-z+.-]*:", link):  # an address
            continue
        name, _, anchor = link.partition("#")
        target = (REPO / page.parent / name).resolve() if name else REPO / page
        inside = target.relative_to(REPO.resolve()) if target.is_relative_to(REPO.resolve()) else None
        if inside is None or not (inside in tracked or any(inside in path.parents for path in tracked)):
            yield f"{link}: no such file here"
        elif anchor and (target.suffix != ".md" or anchor not in anchors_of(target.read_text())):
            yield f"{link}: no such heading"


def test_links_and_headings_are_found_outside_of_code():
    markdown = (
        "# A *b*: `c`, d\n## Same\n## Same\n[x](a.md#b) ![y](p.png) `[no](no.md)`\n```\n# no\n[no](no.md)\n```\n"
        "[`z`](https://example.org)\n"
    )
    assert links_in(markdown) == ["a.md#b", "p.png", "https://example.org"]
    assert anchors_of(markdown) == {"a-b-c-d", "same", "same-1"}


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_link_of_a_page_leads_to_a_file_or_heading_of_the_repository(page: Path) -> None:
    assert list(broken_links(page)) == []


# ---- commands


def commands_in(markdown: str) -> list[str]:
    """The lines of its fenced blocks, continued lines joined, one command each (a && b are two)."""
    lines = "\n".join(FENCED.findall(markdown)).replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines for part in re.split(r"&&|;", line.strip().removeprefix("$ "))]


def job_arguments(command: str) -> list[str] | None:
    """`jobs/NAME.py` and its arguments, placeholders filled in; None where no job is started."""
    if not re.search(r"\bjobs/\w+\.py\b", command):
        return None
    # <a number> stands for a value: every setting of the jobs that is a number takes 1
    words = shlex.split(re.sub(r"<[^<>]*>", "1", command), comments=True)
    starts = [place for place, word in enumerate(words) if re.fullmatch(r"jobs/\w+\.py", word)]
    if not starts or not re.fullmatch(r"python[\d.]*", Path(words[starts[0] - 1]).name):
        return None
    arguments = words[starts[0] :]
    ends = [place for place, word in enumerate(arguments) if word in ("|", "&", ">", "2>&1") or word.startswith(">")]
    return arguments[: ends[0]] if ends else arguments


def jobs_of(page: Path) -> list[tuple[str, ...]]:
    """The jobs that a page starts, as the words of their command lines."""
    commands = commands_in(text_of(page))
    return [tuple(arguments) for command in commands if (arguments := job_arguments(command))]


@functools.cache
def documented_jobs() -> list[tuple[str, ...]]:
    """Those of all pages, each once."""
    return sorted({arguments for page in pages() for arguments in jobs_of(page)})


def stages() -> list[str]:
    return sorted(path.stem for path in (REPO / "jobs").glob("*.py"))


def test_commands_are_found_in_fenced_blocks() -> None:
    markdown = (
        "```\npip install -e . && python jobs/transfer.py\n"
        "$ ray job submit -- python jobs/train.py \\\n  --epochs <EPOCHS>  # long\n```\n"
        "`python jobs/not_fenced.py`\n```\nit's no command\n```\n"
    )
    found = [arguments for command in commands_in(markdown) if (arguments := job_arguments(command))]
    assert found == [["jobs/transfer.py"], ["jobs/train.py", "--epochs", "1"]]


@pytest.mark.parametrize("arguments", documented_jobs(), ids=" ".join)
def test_every_job_command_of_the_pages_parses(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPO)
    monkeypatch.setattr(sys, "argv", [*arguments, "--print-config"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(REPO / arguments[0]), run_name="__main__")
    assert end.value.code == 0, capsys.readouterr().err


# ---- tables that follow from kept results


def kept_results() -> list[Path]:
    return sorted(path for path in committed() if path.suffix == ".csv" and KEPT_RESULTS in path.parents)


def table_commands() -> list[tuple[str, ...]]:
    """The comparisons of kept results on the page that reports them."""
    return [arguments for arguments in jobs_of(EVIDENCE) if "--results" in arguments]


@pytest.mark.heavy
@pytest.mark.parametrize("arguments", table_commands(), ids=" ".join)
def test_a_table_of_kept_results_stands_on_its_page_as_the_command_makes_it(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPO)
    monkeypatch.setattr(sys, "argv", [*arguments, "--output", str(tmp_path)])
    runpy.run_path(str(REPO / arguments[0]), run_name="__main__")
    assert (tmp_path / "claims.md").read_text().strip() in text_of(EVIDENCE)


def test_all_kept_results_are_small_and_in_a_table() -> None:
    in_tables = {Path(word) for arguments in table_commands() for word in arguments}
    assert set(kept_results()) <= in_tables
    assert all((REPO / path).stat().st_size < MAX_KEPT_BYTES for path in kept_results())


# ---- what pages there are


def test_readme_is_read_in_one_go() -> None:
    assert len(text_of(Path("README.md")).splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("stage", stages())
def test_every_job_has_a_guide_that_starts_it_and_that_readme_links_to(stage: str) -> None:
    guide = Path("jobs") / f"{stage}.md"
    assert f"jobs/{stage}.py" in {arguments[0] for arguments in jobs_of(guide)}
    assert str(guide) in links_in(text_of(Path("README.md")))


def test_pictures_are_few_and_small_and_each_is_shown_on_a_page() -> None:
    pictures = {path for path in committed() if path.suffix in PICTURE_SUFFIXES}
    assert len(pictures) <= MAX_PICTURES
    assert {path: size for path in pictures if (size := (REPO / path).stat().st_size) >= MAX_PICTURE_BYTES} == {}
    shown = {(REPO / page.parent / link).resolve() for page in pages() for link in links_in(text_of(page))}
    assert {path for path in pictures if (REPO / path).resolve() not in shown} == set()
