"""Keys of files, there and back."""

from __future__ import annotations

import pytest

from sqlitereplica.ltx import FileInfo
from sqlitereplica.store import Layout, layout_for
from sqlitereplica.store.layout import timestamp_metadata

NAME = "0000000000000001-00000000000000ff.ltx"


@pytest.mark.parametrize(
    ("protocol", "key"),
    [
        ("s3", f"r/0009/{NAME}"),
        ("s3a", f"r/0009/{NAME}"),
        ("oss", f"r/0009/{NAME}"),
        ("file", f"r/ltx/9/{NAME}"),
        ("gs", f"r/ltx/9/{NAME}"),
        ("abfs", f"r/ltx/9/{NAME}"),
        ("sftp", f"r/ltx/9/{NAME}"),
        ("memory", f"r/ltx/9/{NAME}"),
    ],
)
def test_keys_are_those_of_litestream(protocol: str, key: str) -> None:
    """Levels are hexadecimal on S3 and OSS, decimal below ``ltx`` elsewhere."""
    assert layout_for(protocol).key("r", 9, 1, 255) == key


@pytest.mark.parametrize("hexadecimal", [True, False])
@pytest.mark.parametrize("level", range(10))
def test_key_is_parsed_back(hexadecimal: bool, level: int) -> None:
    """What is written is recognised."""
    layout = Layout(hexadecimal)
    key = layout.key("", level, 1, 255).removeprefix("/")
    assert layout.parse(key, size=5, timestamp=6) == FileInfo(level, 1, 255, 5, 6)


@pytest.mark.parametrize("level", [-1, 10, 99])
def test_level_that_does_not_exist_is_refused(level: int) -> None:
    """Levels are 0 to 9."""
    for layout in (Layout(True), Layout(False)):
        with pytest.raises(ValueError, match="no level"):
            layout.key("r", level, 1, 1)


@pytest.mark.parametrize(
    "key",
    [
        NAME,
        f"ltx/{NAME}",
        f"ltx/10/{NAME}",
        f"ltx/00/{NAME}",
        f"ltx/x/{NAME}",
        f"ltx/²/{NAME}",
        f"LTX/1/{NAME}",
        f"other/1/{NAME}",
        f"a/ltx/1/{NAME}",
        f"ltx/1/a/{NAME}",
        f"ltx/1/../{NAME}",
        f"/ltx/1/{NAME}",
        f"ltx/1/{NAME}.tmp",
        f"ltx/1/{NAME.upper()}",
        "ltx/1/00000000000000ff-0000000000000001.ltx",
        "ltx/1/0000000000000000-0000000000000001.ltx",
        "ltx/1/",
        "",
        "ltx/1/..",
        f"ltx/1/{NAME}\0",
        f"000a/{NAME}",
        f"0010/{NAME}",
        f"00000/{NAME}",
        f"001/{NAME}",
        f"0x01/{NAME}",
        f"-001/{NAME}",
        f"x/0001/{NAME}",
    ],
)
def test_foreign_key_is_no_file(key: str) -> None:
    """Whatever is not exactly a key of ours is ignored."""
    for layout in (Layout(True), Layout(False)):
        assert layout.parse(key, size=0, timestamp=0) is None


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_000, "2023-11-14T22:13:20Z"),
        (1_700_000_000_120, "2023-11-14T22:13:20.12Z"),
        (1_700_000_000_500, "2023-11-14T22:13:20.5Z"),
        (1_700_000_000_007, "2023-11-14T22:13:20.007Z"),
    ],
)
def test_time_is_spelt_as_go_does(timestamp: int, text: str) -> None:
    """RFC3339Nano: a fraction without trailing zeros, or none."""
    assert timestamp_metadata("s3", timestamp) == {"litestream-timestamp": text}


def test_no_metadata_where_the_file_has_a_time_of_its_own() -> None:
    """Folders keep the time as mtime; memory keeps none."""
    for protocol in ("file", "memory", "sftp", "webdav"):
        assert timestamp_metadata(protocol, 1) == {}
