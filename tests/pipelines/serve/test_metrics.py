import pickle

from prometheus_client.parser import text_string_to_metric_families

from pipelines.serve.metrics import Metrics, metrics_page


def test_counts_of_several_processes_stand_side_by_side():
    measured = {}
    for replica, count in (("first", 2), ("second", 5)):
        metrics = Metrics(num_open=lambda count=count: count, num_waiting=lambda: 0)
        metrics.requests.labels("200").inc(count)
        metrics.seconds.observe(count)
        measured[replica] = pickle.loads(pickle.dumps(metrics.measured()))
    families = {each.name: each for each in text_string_to_metric_families(metrics_page(measured).decode())}
    requests = {tuple(sorted(each.labels.items())): each.value for each in families["t3d_serve_requests"].samples}
    assert requests == {
        (("replica", "first"), ("status", "200")): 2,
        (("replica", "second"), ("status", "200")): 5,
    }
    sums = {each.labels["replica"]: each.value for each in families["t3d_serve_request_seconds"].samples
            if each.name.endswith("_sum")}  # fmt: skip
    assert sums == {"first": 2, "second": 5}
    assert {each.value for each in families["t3d_serve_open_requests"].samples} == {2, 5}
