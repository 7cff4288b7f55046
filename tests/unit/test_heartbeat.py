"""What counts as an acknowledged heartbeat."""

from __future__ import annotations

import pytest

from eventsched.heartbeat import why_not_stored


def test_an_acknowledgement_has_a_sequence() -> None:
    assert why_not_stored(b'{"stream":"HB","seq":7}') == ""
    assert why_not_stored(b'{"stream":"HB","domain":"hub","seq":7,"duplicate":true}') == ""


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"HB","seq":0}',
            "maximum bytes exceeded (10077)",
        ),
        (b'{"error":{"code":503,"err_code":10008},"stream":"HB","seq":9}', "an error without words (10008)"),
        (b'{"stream":"HB","seq":0}', "the answer names no sequence"),
        (b"{}", "the answer names no sequence"),
        (b"", "the answer is not an acknowledgement"),
        (b"+OK", "the answer is not an acknowledgement"),
        (b'{"seq":7,"error":{"description":"\xff"}}', "the answer is not an acknowledgement"),
        (b"\xff{}", "the answer is not an acknowledgement"),
    ],
)
def test_every_other_answer_is_none(answer: bytes, words: str) -> None:
    assert why_not_stored(answer) == words
