from contextlib import ExitStack

import pytest

from pipelines.serve.admission import Admission
from pipelines.serve.config import LimitsConfig
from pipelines.serve.refusal import Refusal


def refused(admission, client):
    with pytest.raises(Refusal) as refusal, admission.admit(client):
        pass
    assert int(refusal.value.headers["Retry-After"]) > 0
    return refusal.value.status


def test_a_client_with_many_requests_waits_while_others_are_let_in():
    admission = Admission(LimitsConfig(open_requests=3, open_requests_per_client=2))
    with ExitStack() as stack:
        for client in ("a", "a", "b"):
            stack.enter_context(admission.admit(client))
            if client == "a" and admission.num_open == 2:
                assert refused(admission, "a") == 429
        assert refused(admission, "c") == 503
        assert admission.num_open == 3
    assert admission.num_open == 0
    with admission.admit("a"):
        pass


def test_a_place_is_free_again_after_an_error():
    admission = Admission(LimitsConfig(open_requests=1, open_requests_per_client=None))
    with pytest.raises(ZeroDivisionError), admission.admit("a"):
        _ = 1 / 0
    with admission.admit("a"):
        assert refused(admission, "a") == 503


def test_a_closing_server_lets_nobody_in():
    admission = Admission(LimitsConfig())
    admission.is_closing = True
    assert refused(admission, "a") == 503
