import pytest

from pipelines.serve.access import TOKEN_VARIABLE, check_access, is_loopback, token_digest
from pipelines.serve.refusal import Refusal
from t3d_core.errors import UserError

TOKEN = "0123456789abcdef" * 2


@pytest.fixture
def digest(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    return token_digest(host="0.0.0.0", without_token=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.com"])
def test_a_server_that_others_reach_needs_a_token_or_a_word(monkeypatch, host):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(UserError, match="set T3D_SERVE_TOKEN"):
        token_digest(host=host, without_token=False)
    assert token_digest(host=host, without_token=True) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_server_of_this_machine_alone_needs_none(monkeypatch, host):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert is_loopback(host)
    assert token_digest(host=host, without_token=False) is None


def test_a_token_that_can_be_guessed_is_refused(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    with pytest.raises(UserError, match="has 6 characters"):
        token_digest(host="127.0.0.1", without_token=False)


def test_the_token_lets_in_and_nothing_else_does(digest):
    assert TOKEN not in digest
    for header in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
        check_access({"authorization": header, "host": "any"}, digest=digest, is_local=False)
    for header in ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}0", "Bearer \udcff"):
        with pytest.raises(Refusal) as refused:
            check_access({"authorization": header}, digest=digest, is_local=False)
        assert refused.value.status == 401


def test_without_a_token_web_pages_of_others_are_kept_out():
    check_access({"host": "127.0.0.1:8000"}, digest=None, is_local=True)
    check_access({"host": "localhost:8000", "origin": "http://localhost:8000"}, digest=None, is_local=True)
    check_access({"host": "[::1]:8000"}, digest=None, is_local=True)
    check_access({"host": "my.server"}, digest=None, is_local=False)
    for headers in (
        {"host": "rebound.example.com:8000"},
        {"host": "127.0.0.1:8000", "origin": "https://evil.example.com"},
        {"host": "127.0.0.1:8000", "origin": "null"},
        {},
    ):
        with pytest.raises(Refusal) as refused:
            check_access(headers, digest=None, is_local=True)
        assert refused.value.status == 403
