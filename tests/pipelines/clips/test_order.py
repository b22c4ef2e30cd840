"""The order of training clips is a function of seed and step: every row once an epoch."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.clips.order import SourceLimit, TrainOrder


@given(num_rows=st.integers(1, 40), batch=st.integers(1, 50), epochs=st.integers(1, 5), seed=st.integers(0, 3))
def test_every_epoch_shows_every_row_once_and_nothing_is_dropped_between_epochs(num_rows, batch, epochs, seed):
    order = TrainOrder(num_rows, batch, seed)
    num_steps = -(-epochs * num_rows // batch)
    rows = np.concatenate([order.rows(step)[0] for step in range(num_steps)])[: epochs * num_rows]
    for epoch in range(epochs):
        assert sorted(rows[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))


@given(sources=st.lists(st.integers(0, 4), min_size=1, max_size=30), most=st.integers(1, 4), batch=st.integers(1, 7))
def test_a_pass_takes_no_more_rows_of_a_source_than_the_limit_and_others_the_next_time(sources, most, batch):
    limit = SourceLimit(np.array(sources), most)
    order = TrainOrder(len(sources), batch, seed=0, limit=limit)
    counts = Counter(sources)
    assert order.rows_a_pass == sum(min(count, most) for count in counts.values())
    num_steps = -(-40 * order.rows_a_pass // batch)
    rows = np.concatenate([order.rows(step)[0] for step in range(num_steps)])[: 40 * order.rows_a_pass]
    for of_pass in rows.reshape(40, -1):
        assert len(set(of_pass)) == len(of_pass)
        assert Counter(sources[row] for row in of_pass) == {s: min(count, most) for s, count in counts.items()}
    assert set(rows) == set(range(len(sources))) or max(counts.values()) > 5 * most


def test_epochs_have_different_orders_and_the_same_seed_gives_the_same():
    order = TrainOrder(num_rows=100, global_batch_size=100, seed=7)
    assert not np.array_equal(order.rows(0)[0], order.rows(1)[0])
    assert np.array_equal(order.rows(1)[0], TrainOrder(100, 100, 7).rows(1)[0])
    assert not np.array_equal(order.rows(0)[0], TrainOrder(100, 100, 8).rows(0)[0])


@given(num_rows=st.integers(4, 60), batch=st.integers(1, 9), share=st.floats(0.1, 1), epochs=st.integers(1, 9))
def test_an_epoch_that_is_a_part_of_a_pass_counts_its_rows_and_changes_no_order(num_rows, batch, share, epochs):
    order, whole = TrainOrder(num_rows, batch, 0, epoch_share=share), TrainOrder(num_rows, batch, 0)
    num_steps = order.num_steps(epochs)
    assert all(np.array_equal(order.rows(step)[0], whole.rows(step)[0]) for step in range(num_steps))
    of_epochs = [order.epoch(step) for step in range(num_steps)]
    assert of_epochs == sorted(of_epochs)
    assert of_epochs[-1] <= epochs - 1 or num_steps == 1
    # No clip of an epoch is missing, but those that do not fill the last step.
    assert 0 <= epochs * max(1, round(share * num_rows)) - num_steps * batch < batch or num_steps == 1


def test_a_step_that_straddles_two_passes_names_the_pass_of_each_row():
    order = TrainOrder(num_rows=5, global_batch_size=4, seed=0)
    assert order.rows(1)[1].tolist() == [0, 1, 1, 1]
    assert [order.epoch(step) for step in range(4)] == [0, 0, 1, 2]
