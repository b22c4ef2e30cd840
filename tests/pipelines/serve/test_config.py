import pytest
from pydantic import ValidationError

from pipelines.serve.config import ServeConfig


@pytest.mark.parametrize(
    "prefix", ["https://example.com", "example.com/clips/", "https:///clips/", "file:///videos/", "s3://bucket/a"]
)
def test_a_listed_address_ends_with_a_slash_behind_its_host(prefix):
    with pytest.raises(ValidationError, match="up to a slash"):
        ServeConfig(allowed_addresses=(prefix,))
    ServeConfig(allowed_addresses=("https://example.com/", "s3://bucket/videos/"))
