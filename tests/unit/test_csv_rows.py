"""CSV that is none: a row of it is refused, the others stay, and none of it takes long."""

from __future__ import annotations

import io
import time

import pytest

from eventsched.rows import LINE_MAX, BadFile, Row, read_rows


def rows(text: str) -> list[Row]:
    return list(read_rows(io.BytesIO(text.encode()), "csv"))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("a\rb,x", "is not CSV: new-line character seen in unquoted field"),
        ('"a' + "x" * LINE_MAX + '",x', f"the row is longer than {LINE_MAX} bytes"),
        ("a," + "x" * LINE_MAX, f"the row is longer than {LINE_MAX} bytes"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_and_the_next_is_read(row: str, told: str) -> None:
    refused, good = rows(f"job_id,docker_image\n{row}\nb,busybox\n")
    assert (refused.line, good.line, good.body) == (2, 3, {"job_id": "b", "docker_image": "busybox"})
    assert str(refused.wrong).startswith(told)


def test_a_field_may_be_as_long_as_a_row() -> None:
    (row,) = rows(f"job_id,docker_image\na,{'x' * 200_000}\n")
    assert len(row.body["docker_image"]) == 200_000


@pytest.mark.parametrize("header", ["job_id\rgpus,priority", "job_id," + "x" * LINE_MAX, '"job_id\n' * LINE_MAX])
def test_a_header_that_cannot_be_read_is_a_bad_format(header: str) -> None:
    with pytest.raises(BadFile) as refused:
        rows(f"{header}\na,1\n")
    assert refused.value.code == "BAD_FORMAT"


def test_a_quote_that_is_never_closed_costs_no_more_than_its_lines() -> None:
    start = time.process_time()
    found = rows('job_id\n"' + "\n" * 1_000_000 + "a\n")
    assert time.process_time() - start < 10, "each line is looked at once"
    assert [row.wrong is None for row in found] == [False, True]
