"""The paper's tables have lines that runs can match."""

import pytest

from pipelines.compare.paper_tables import TABLES, family_of


def test_every_table_of_the_paper_has_lines_that_runs_can_match():
    assert set(TABLES) == {2, 3, 4, 5, 6, 8, 9, 10}
    for table in TABLES.values():
        assert len({tuple(sorted(row.match.items())) for row in table.rows}) == len(table.rows)
        assert table.baselines
        assert {*table.baselines} <= {row.label for row in table.rows}
        assert all(0 < row.top1 < 100 for row in table.rows)
    assert [row.top1 for row in TABLES[6].rows] == [65.2, 69.1, 68.3, 60.5]


@pytest.mark.parametrize(
    ("kind", "family"),
    [("t3d_121_depths_1", "T3D"), ("resnet3d_50", "ResNet3D"), ("inception3d", "Inception3D"), ("res3d_18", "Res3D")],
)
def test_a_kind_of_network_is_called_as_in_the_paper(kind, family):
    assert family_of(kind) == family
