"""What is said of a file whose submission was cut short."""

from __future__ import annotations

import io
import json

import pytest

from eventsched.cli.job_files import JobFile
from eventsched.cli.submit_file import FileReport
from eventsched.client import Submitted
from eventsched.errors import DuplicateJob
from eventsched.log.port import Unavailable
from eventsched.rows import Row


@pytest.mark.parametrize("as_json", [True, False])
def test_nothing_behind_the_row_where_it_stopped_is_called_accepted(
    capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    rows = [Row(number, {"job_id": f"j{number}"}) for number in range(1, 6)]
    report = FileReport(
        JobFile("jobs.csv", iter(rows), "line", io.BytesIO(), 0), io.BytesIO(), as_json=as_json, brief=False, keep=False
    )
    fates = (
        Submitted("j1", "t", 7),
        DuplicateJob("job id 'j2' is taken"),
        Submitted("j3", "t", 8),
        Unavailable("the log cannot be reached"),
        Submitted("j5", "t", 9),
    )
    for row, fate in zip(rows, fates, strict=True):
        report.take(row, fate)
    assert report.finish() == 1
    out, err = capsys.readouterr()
    assert "stopped at jobs.csv, line 4" in err
    assert "the log cannot be reached" in err
    assert "hint: submit the file again" in err
    if as_json:
        found = json.loads(out)
        assert [one["line"] for one in found["accepted"]] == [1, 3]
        assert [one["line"] for one in found["rejected"]] == [2]
        assert found["stopped"] == {"line": 4, "error": "the log cannot be reached"}
    else:
        assert out.splitlines()[-1] == "2 accepted, 1 refused"
