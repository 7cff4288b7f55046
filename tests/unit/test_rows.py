"""Jobs in files, row by row."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from eventsched.rows import AHEAD, LINE_MAX, ROWS_AT_ONCE, BadFile, Encoding, Row, in_turn, read_rows


def rows(text: str | bytes, fmt: str = "ndjson") -> list[Row]:
    data = text.encode() if isinstance(text, str) else text
    return list(read_rows(io.BytesIO(data), "csv" if fmt == "csv" else "ndjson"))


def test_ndjson_counts_lines_and_leaves_the_others_alone() -> None:
    found = rows('\ufeff{"a":1}\r\n\n  \n{"b":\n[1]\n' + "[" * 2000 + "\n" + '{"c":"' + "x" * LINE_MAX + '"}\n{"d":2}')
    assert [(row.line, row.body, row.wrong is None) for row in found] == [
        (1, {"a": 1}, True),
        (4, None, False),
        (5, [1], True),
        (6, None, False),
        (7, None, False),
        (8, {"d": 2}, True),
    ]


def test_csv_has_a_header_quotes_and_numbers() -> None:
    found = rows('job_id,gpus,tenant_id\na,1,t1\n"b\nb",2,"t,1"\nc,x,t1\nd,1\n\ne,,t1', "csv")
    assert [(row.line, row.body) for row in found if row.wrong is None] == [
        (2, {"job_id": "a", "gpus": 1, "tenant_id": "t1"}),
        (3, {"job_id": "b\nb", "gpus": 2, "tenant_id": "t,1"}),
        (8, {"job_id": "e", "tenant_id": "t1"}),
    ]
    assert [(row.line, str(row.wrong)) for row in found if row.wrong is not None] == [
        (5, "gpus: 'x' is no number"),
        (6, "2 fields; the header has 3"),
    ]


@pytest.mark.parametrize("text", ["", "\n", "job_id,what\na,b\n", "job_id,job_id\na,b\n", '{"job_id":"a"}\n'])
def test_a_csv_without_its_header_is_refused(text: str) -> None:
    with pytest.raises(BadFile) as refused:
        rows(text, "csv")
    assert refused.value.code == "BAD_FORMAT"


def test_bytes_that_are_no_text_are_found_wherever_they_are_cut() -> None:
    encoding = Encoding()
    encoding.check("ä".encode()[:1])
    encoding.check("ä".encode()[1:], final=True)
    with pytest.raises(BadFile) as refused:
        Encoding().check("ä".encode()[:1], final=True)
    assert refused.value.code == "BAD_ENCODING"


async def test_rows_meet_their_fates_in_order_and_few_are_read_ahead() -> None:
    count = (AHEAD + 4) * ROWS_AT_ONCE + 3
    read = 0

    def rows_read() -> Iterator[Row]:
        nonlocal read
        for number in range(1, count + 1):
            read = number
            yield Row(number)

    async def submit(chunk: list[Row]) -> list[int]:
        return [row.line for row in chunk]

    told: list[int] = []
    async for chunk, fates in in_turn(rows_read(), submit):
        assert [row.line for row in chunk] == fates
        told += fates
        assert read - len(told) <= AHEAD * ROWS_AT_ONCE
    assert told == list(range(1, count + 1))
