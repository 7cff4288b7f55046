"""The gathering writer: concurrent writes become batches, and each message meets its own fate exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from eventsched.log.gather import GATHER_MAX, GatheringWriter
from eventsched.log.port import (
    AppendError,
    Busy,
    Conflict,
    Denied,
    OutcomeUnknown,
    Outgoing,
    Refused,
    Unavailable,
)

from ..scripted_log import Answer, ScriptedLog


@pytest.fixture(autouse=True)
def _retries_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventsched.log.gather.RETRY_S", (0.001,))


def _out(number: int, subject: str = "", *, named: bool = True, expect: int | None = None) -> Outgoing:
    """Message `number`, with an id of its own."""
    return Outgoing(subject or f"ev.s{number}", b"%d" % number, msg_id=f"m{number}" if named else "", expect=expect)


def _numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


async def _fates(writer: GatheringWriter, *messages: Outgoing) -> list[int | BaseException]:
    """Post all at once; what became of each."""
    async with asyncio.timeout(5):
        return await asyncio.gather(*(writer.put_soon(message) for message in messages), return_exceptions=True)


async def _in_flight(log: ScriptedLog, attempts: int = 1) -> None:
    """Return when the log has been asked so often."""
    async with asyncio.timeout(5):
        while len(log.attempts) < attempts:
            await asyncio.sleep(0)


# ---- batches ------------------------------------------------------------------------------------


async def test_messages_posted_together_are_one_batch() -> None:
    log = ScriptedLog()
    writer = GatheringWriter(log)
    assert await _fates(writer, *(_out(number) for number in range(5))) == [1, 2, 3, 4, 5]
    assert log.sizes == [5]
    await writer.close()


async def test_what_arrives_while_a_batch_is_in_flight_forms_the_next_one() -> None:
    log = ScriptedLog()
    log.gate.clear()
    writer = GatheringWriter(log)
    first = writer.put_soon(_out(0))
    await _in_flight(log)
    others = [asyncio.create_task(writer.put(_out(number))) for number in range(1, 5)]
    await asyncio.sleep(0)
    assert log.sizes == [1], "one batch at a time"
    log.gate.set()
    assert [await first, *(await asyncio.gather(*others))] == [1, 2, 3, 4, 5]
    assert log.sizes == [1, 4]
    await writer.close()


async def test_a_batch_is_limited_in_messages_and_in_bytes() -> None:
    log = ScriptedLog()
    writer = GatheringWriter(log)
    await _fates(writer, *(_out(number) for number in range(2 * GATHER_MAX + 200)))
    assert log.sizes == [GATHER_MAX, GATHER_MAX, 200]
    log.attempts.clear()
    await _fates(writer, *(Outgoing("ev.large", bytes(1024 * 1024)) for _ in range(5)))
    assert log.sizes == [2, 2, 1]
    await writer.close()


@pytest.mark.parametrize(("linger_s", "sizes"), [(0.0, [1, 1, 1]), (0.02, [1, 2])])
async def test_a_writer_that_lingers_lets_more_join_the_next_batch(linger_s: float, sizes: list[int]) -> None:
    log = ScriptedLog()
    writer = GatheringWriter(log, linger_s=linger_s)
    loop = asyncio.get_running_loop()
    rest: list[int | AppendError] = []

    def first_is_stored(_: int | AppendError) -> None:
        writer.post(_out(1), rest.append)
        loop.call_soon(writer.post, _out(2), rest.append)

    writer.post(_out(0), first_is_stored)
    async with asyncio.timeout(5):
        while len(rest) < 2:
            await asyncio.sleep(0.001)
    assert rest == [2, 3]
    assert log.sizes == sizes
    await writer.close()


async def test_a_writer_at_rest_does_not_linger_not_even_for_its_first_message() -> None:
    log = ScriptedLog()
    writer = GatheringWriter(log, linger_s=3600)
    assert await asyncio.wait_for(writer.put(_out(0)), 5) == 1
    await writer.drain()
    assert await asyncio.wait_for(writer.put(_out(1)), 5) == 2
    await writer.close()


async def test_the_order_of_posting_is_the_order_in_the_log() -> None:
    log = ScriptedLog("lost", "down", "unheard", "busy")
    writer = GatheringWriter(log)
    futures: list[asyncio.Future[int]] = []
    for number in range(60):
        futures.append(writer.put_soon(_out(number)))
        if number % 7 == 0:
            await asyncio.sleep(0)
    assert await asyncio.gather(*futures) == list(range(1, 61))
    assert log.stored == _numbers(60)
    await writer.close()


# ---- one of them is refused ---------------------------------------------------------------------


async def test_one_id_twice_in_a_batch_is_stored_once_and_both_learn_where() -> None:
    log = ScriptedLog()
    writer = GatheringWriter(log)
    twice = _out(1)
    assert await _fates(writer, _out(0), twice, twice, _out(2)) == [1, 2, 2, 3]
    assert log.stored == _numbers(3)
    await writer.close()


async def test_an_id_that_is_stored_already_is_not_stored_again() -> None:
    log = ScriptedLog()
    writer = GatheringWriter(log)
    assert await writer.put(_out(0)) == 1
    assert await _fates(writer, _out(1), _out(0), _out(2)) == [2, 1, 3]
    assert log.stored == _numbers(3)
    await writer.close()


@pytest.mark.parametrize("place", range(7))
async def test_one_culprit_fails_alone_and_the_rest_lands_in_order(place: int) -> None:
    log = ScriptedLog()
    log.core.append([Outgoing("ev.taken", b"theirs", msg_id="theirs")], 1)
    writer = GatheringWriter(log)
    messages = [_out(number, expect=0) for number in range(7)]
    messages[place] = _out(place, "ev.taken", expect=0)
    fates = await _fates(writer, *messages)
    assert isinstance(fates.pop(place), Conflict)
    assert fates == [2, 3, 4, 5, 6, 7]
    assert log.stored == [b"theirs", *(payload for payload in _numbers(7) if payload != b"%d" % place)]
    await writer.close()


async def test_of_two_with_one_subject_to_be_new_the_later_one_fails() -> None:
    """In two batches; what the log says to both in one batch is a matter of the log."""
    log = ScriptedLog()
    writer = GatheringWriter(log)
    assert await writer.put(_out(0, "ev.job", expect=0)) == 1
    fates = await _fates(writer, _out(1), _out(2, "ev.job", expect=0))
    assert fates[0] == 2
    assert isinstance(fates[1], Conflict)
    await writer.close()


async def test_a_conflict_that_cannot_be_looked_into_stays_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    log = ScriptedLog("lost")

    async def no_answer(subject: str) -> tuple[int, str] | None:
        raise TimeoutError(subject)

    monkeypatch.setattr(log, "last_on", no_answer)
    writer = GatheringWriter(log)
    (fate,) = await _fates(writer, _out(0, expect=0))
    assert isinstance(fate, Conflict)
    await writer.close()


@pytest.mark.parametrize(("answer", "kind"), [("refused", Refused), ("denied", Denied)])
async def test_what_the_log_will_never_take_fails_at_once(answer: Answer, kind: type[AppendError]) -> None:
    log = ScriptedLog(answer)
    writer = GatheringWriter(log)
    fates = await _fates(writer, _out(0), _out(1))
    assert [type(fate) for fate in fates] == [kind, kind]
    assert log.sizes == [2], "it is not tried again"
    assert await writer.put(_out(2)) == 1, "and the writer goes on"
    await writer.close()


# ---- the log is out of reach --------------------------------------------------------------------


@pytest.mark.parametrize("script", [["lost"], ["unheard"], ["unheard", "lost", "down"], ["lost", "busy", "unheard"]])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("expect", [None, 0])
async def test_an_unknown_outcome_is_tried_again_under_the_same_id_and_lands_once(
    script: list[Answer], count: int, expect: int | None
) -> None:
    log = ScriptedLog(*script)
    writer = GatheringWriter(log)
    messages = [_out(number, expect=expect) for number in range(count)]
    assert await _fates(writer, *messages) == list(range(1, count + 1))
    assert log.stored == _numbers(count)
    assert log.attempts[: len(script) + 1] == [messages] * (len(script) + 1), "the very same messages each time"
    await writer.close()


async def test_a_stored_message_that_lost_its_answer_is_told_from_a_strangers() -> None:
    log = ScriptedLog("lost")
    log.core.append([Outgoing("ev.taken", b"theirs", msg_id="theirs")], 1)
    writer = GatheringWriter(log)
    assert await writer.put(_out(0, "ev.mine", expect=0)) == 2
    with pytest.raises(Conflict):
        await writer.put(_out(1, "ev.taken", expect=0))
    assert log.stored == [b"theirs", b"0"]
    await writer.close()


async def test_a_writer_that_never_gives_up_outlasts_a_long_absence() -> None:
    down: list[Answer] = ["down"] * 30
    log = ScriptedLog(*down)
    writer = GatheringWriter(log)
    assert await writer.put(_out(0)) == 1
    assert len(log.attempts) == 31
    await writer.close()


@pytest.mark.parametrize(("answer", "kind"), [("down", Unavailable), ("unheard", OutcomeUnknown), ("busy", Busy)])
async def test_a_writer_gives_up_with_the_last_error_and_is_ready_for_more(
    answer: Answer, kind: type[AppendError]
) -> None:
    log = ScriptedLog(*[answer] * 100_000)
    writer = GatheringWriter(log, give_up_s=0.03)
    fates = await _fates(writer, _out(0), _out(1))
    assert [type(fate) for fate in fates] == [kind, kind]
    assert len(log.attempts) > 1
    log.script.clear()
    assert await writer.put(_out(2)) == 1
    assert log.stored == [b"2"]
    await writer.close()


async def test_a_last_error_does_not_hide_that_an_earlier_attempt_may_be_stored() -> None:
    """Unavailable would say that nothing is."""
    log = ScriptedLog("lost", *["down"] * 100_000)
    writer = GatheringWriter(log, give_up_s=0.03)
    assert [type(fate) for fate in await _fates(writer, _out(0))] == [OutcomeUnknown]
    assert log.stored == [b"0"]
    log.script[:] = ["unheard", "refused"]
    assert [type(fate) for fate in await _fates(writer, _out(1))] == [OutcomeUnknown]
    log.script[:] = ["refused"]
    assert [type(fate) for fate in await _fates(writer, _out(2))] == [Refused], "of this one all is known"
    await writer.close()


async def test_a_defect_of_the_log_or_of_a_caller_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    log = ScriptedLog()
    writer = GatheringWriter(log)
    with monkeypatch.context() as patched:

        async def broken(messages: Sequence[Outgoing], *, fence: int | None = None) -> int:
            raise RuntimeError("a defect")

        patched.setattr(log, "append", broken)
        fates = await _fates(writer, _out(0), _out(1))
    assert [type(fate) for fate in fates] == [OutcomeUnknown, OutcomeUnknown]
    assert "RuntimeError: a defect" in str(fates[0])

    def raises(outcome: int | AppendError) -> None:
        raise RuntimeError("another")

    writer.post(_out(2), raises)
    assert await _fates(writer, _out(3)) == [2], "in the same batch"
    assert await _fates(writer, _out(4)) == [3], "and afterwards"
    await writer.close()


# ---- leaving ------------------------------------------------------------------------------------


async def test_draining_waits_for_everything_that_is_queued() -> None:
    log = ScriptedLog()
    log.gate.clear()
    writer = GatheringWriter(log)
    await asyncio.wait_for(writer.drain(), 1)  # nothing is queued
    futures = [writer.put_soon(_out(0))]
    await _in_flight(log)
    futures.append(writer.put_soon(_out(1)))
    draining = asyncio.create_task(writer.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    log.gate.set()
    await asyncio.wait_for(draining, 5)
    assert [future.result() for future in futures] == [1, 2]
    await writer.close()


async def test_closing_tells_everyone_who_still_waits() -> None:
    log = ScriptedLog()
    writer = GatheringWriter(log)
    assert await writer.put(_out(0)) == 1
    log.gate.clear()
    futures = [writer.put_soon(_out(1))]
    await _in_flight(log, 2)
    futures += [writer.put_soon(_out(number)) for number in range(2, 5)]
    await writer.close()
    kinds = [type(future.exception()) for future in futures]
    assert kinds == [OutcomeUnknown, *[Unavailable] * 3], "only what was under way may be stored"
    assert log.stored == [b"0"]
    await asyncio.wait_for(writer.drain(), 1)


async def test_closing_during_a_split_tells_each_caller_once() -> None:
    log = ScriptedLog()
    log.core.append([Outgoing("ev.taken", b"theirs", msg_id="theirs")], 1)
    writer = GatheringWriter(log)
    told: dict[int, list[int | AppendError]] = {number: [] for number in range(5)}

    def hold_the_rest_back(outcome: int | AppendError) -> None:
        told[0].append(outcome)
        log.gate.clear()

    writer.post(_out(0, expect=0), hold_the_rest_back)
    for number, subject in ((1, ""), (2, "ev.taken"), (3, "")):
        writer.post(_out(number, subject, expect=0), told[number].append)
    await _in_flight(log, 3)  # all of them; the first half; the second half, which is held back
    writer.post(_out(4), told[4].append)
    await writer.close()
    assert [len(outcomes) for outcomes in told.values()] == [1] * 5
    assert (told[0], told[1]) == ([2], [3])
    assert [type(told[number][0]) for number in (2, 3, 4)] == [OutcomeUnknown, OutcomeUnknown, Unavailable]


async def test_a_closed_writer_takes_nothing_more() -> None:
    log = ScriptedLog()
    writer = GatheringWriter(log)
    assert await writer.put(_out(0)) == 1
    await writer.close()
    with pytest.raises(Unavailable, match="closed"):
        await asyncio.wait_for(writer.put(_out(1)), 1)
    assert log.sizes == [1]
    await asyncio.wait_for(writer.drain(), 1)


async def test_closing_an_unused_writer_does_nothing() -> None:
    log = ScriptedLog()
    await GatheringWriter(log).close()
    assert log.attempts == []


async def test_a_caller_that_goes_away_disturbs_nobody() -> None:
    log = ScriptedLog()
    log.gate.clear()
    writer = GatheringWriter(log)
    first = writer.put_soon(_out(0))
    await _in_flight(log)
    leaving, staying = writer.put_soon(_out(1)), writer.put_soon(_out(2))
    leaving.cancel()
    log.gate.set()
    assert [await first, await staying] == [1, 3]
    assert log.stored == _numbers(3), "what was posted is written all the same"
    await writer.close()


async def test_callers_that_were_answered_together_are_gathered_again() -> None:
    log = ScriptedLog()
    writer = GatheringWriter(log, regather_s=0.05)

    async def caller(number: int) -> None:
        for turn in range(3):
            for _ in range(3 * number):  # some are slower to ask
                await asyncio.sleep(0)
            await writer.put(_out(10 * turn + number))

    async with asyncio.timeout(5):
        await asyncio.gather(*(caller(number) for number in range(6)))
    assert sum(log.sizes) == 18
    assert len(log.sizes) <= 5, log.sizes  # without it there are 16
    await writer.close()
