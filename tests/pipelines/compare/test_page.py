"""The page says what the table says, in a browser too."""

import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pipelines.compare.table import as_markdown, columns_of
from tests.pipelines.compare.browser import BROWSER, Browser


class Cells(HTMLParser):
    """Collects the cells of the table and the addresses that a page loads."""

    def __init__(self, page):
        super().__init__()
        self.cells, self.loaded, self._in_cell = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self._in_cell = tag == "td"
        self.loaded += [value for name, value in attributes if name in ("src", "srcset", "href")]

    def handle_data(self, data):
        if self._in_cell:
            self.cells.append(data)
            self._in_cell = False


def test_the_report_says_the_same_in_every_form(report, store):
    summary, folder = report
    assert {"table.md", "table.csv", "comparison.html", "bars.png", "macs.png"} <= {
        path.name for path in folder.iterdir()
    }
    [first, second] = csv.DictReader(io.StringIO((folder / "table.csv").read_text()))
    page = Cells((folder / "comparison.html").read_text())
    assert float(first["video_top1"]) == np.mean([float(value) for value in first["values"].split()])
    for row in (first, second):
        shown = f"{float(row['video_top1']):.3f}"
        assert all(shown in text for text in (summary, (folder / "table.md").read_text(), " ".join(page.cells)))
    assert float(first["- reference"]) == pytest.approx(float(first["video_top1"]) - float(second["video_top1"]))
    assert 0 < float(first["p unadjusted"]) == float(first["p (Holm)"]) < 0.01
    for text in (summary, (folder / "table.md").read_text(), (folder / "comparison.html").read_text()):
        assert "Differences are from DenseNet3D, the baseline of the paper" in text
        assert "p (Holm)" in text
        assert "p unadjusted" not in text
    assert all(address.startswith("data:image/png;base64,") for address in page.loaded)
    [run] = store.client.search_runs([store.experiment], "tags.stage = 'compare'")
    assert "comparison.html" in [file.path for file in store.client.list_artifacts(run.info.run_id)]


def test_a_label_of_several_lines_is_one_row_of_the_markdown(store):
    for name in ("a\nb|c", "d"):
        store.train(seed=0, init_from=name)
    comparison = store.compare(group_by=("init_from",))
    lines = as_markdown(comparison, columns_of(comparison, {})).splitlines()
    assert sum(line.startswith("| ") for line in lines) == 2 + 2  # with the heading
    assert any(r"a b\|c |" in line for line in lines)


@BROWSER
def test_a_browser_shows_the_page_sorts_its_table_and_has_nothing_to_complain_of(report, tmp_path):
    page = (report[1] / "comparison.html").read_text()
    click = "<script>document.querySelectorAll('th button')[2].click()</script></body>"
    (tmp_path / "sorted.html").write_text(page.replace("</body>", click))
    shown, complaints, num_bytes = Browser(tmp_path).look((tmp_path / "sorted.html").as_uri())
    assert not complaints
    assert re.search(r'<th scope="col" aria-sort="ascending"><button[^>]*>video_top1', shown)
    assert Cells(shown).cells[0] == "DenseNet3D"
    assert Cells(page).cells[0] == "T3D"
    assert num_bytes > 50_000  # an empty page has a tenth
