"""Variables of earlier systems."""

from __future__ import annotations

import pytest

from eventsched.earlier import replaced


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, []),
        ({"REDIS": "x", "MY_REDIS_HOST": "x", "JOB_POLL_INTERVAL_S": "5", "EXECUTOR_ID": "e1"}, []),
        ({"REDIS_PORT": "1", "REDIS_HOST": "x"}, ["note: REDIS_HOST, REDIS_PORT are not used: jobs are in the log"]),
        ({"JOB_POLL_INTERVAL": "5"}, ["note: JOB_POLL_INTERVAL is not used: agents hear"]),
        (
            {"SCHEDULER_RELOAD": "1", "REDIS_DB": "0"},
            ["note: REDIS_DB is not used", "note: SCHEDULER_RELOAD is not used"],
        ),
    ],
)
def test_what_is_not_used_any_more_is_told_with_what_stands_in_its_place(
    given: dict[str, str], told: list[str]
) -> None:
    found = replaced(given)
    assert len(found) == len(told)
    assert all(line.startswith(beginning) for line, beginning in zip(found, told, strict=True))
