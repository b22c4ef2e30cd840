"""The names of the encodings in which `storage` keeps videos: what settings need of it, without PyAV."""

from typing import Literal

Encoding = Literal["auto", "copy", "h264", "jpeg"]
