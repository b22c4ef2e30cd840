import pytest

from pipelines.compare.config import CompareConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"table": 4, "group_by": ("model.kind",)}, "leave out group_by or table"),
        ({"table": 4, "stage": "transfer"}, "leave out stage or table"),
        ({"results": ("a.csv",)}, "add --reference LABEL"),
        ({"results": ("a.csv",), "reference": "a", "runs": ("b",)}, "leave out runs, table, group_by and metric"),
    ],
)
def test_a_table_of_the_paper_decides_how_runs_are_grouped(settings, message):
    with pytest.raises(ValueError, match=message):
        CompareConfig(**settings)
