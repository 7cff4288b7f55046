"""Writing: submissions and requests become events, gathered into batches and durable when acknowledged.

With an idempotency key a submission is two events in one atomic batch: the key's own, on a subject
made from a hash of the key, and the submission. Both must be the first on their subjects, so of two
requests with one key exactly one is stored; the other reads what the first was answered, for ever.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import secrets
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from eventsched import codec, subjects
from eventsched.client import Client, Submitted
from eventsched.errors import DuplicateJob, EventschedError, InvalidSpec, StoreFull, WaitTimeout
from eventsched.events import Keyed
from eventsched.forms import Submission
from eventsched.ids import job_key
from eventsched.log.gather import GatheringWriter
from eventsched.log.port import AppendError, Busy, Conflict, Duplicate, OutcomeUnknown, Outgoing, Unavailable
from eventsched.log.streams import EV
from eventsched.new_ids import new_job_id, new_ulid
from eventsched.projections.following import MIN_SEQ_WAIT_S, Follower
from eventsched.projections.http.errors import ApiError
from eventsched.submissions import submit_error
from eventsched.wire import Event

GIVE_UP_S = 10.0
GATHER_S = 0.003
"""Callers who were answered together soon ask again: they share a batch then, and not two that take turns."""
KEYED_AT_ONCE = 16
KEY_MAX = 255
RETRY_S = 0.02

Fate = Submitted | EventschedError | ApiError


class Owned(Struct, frozen=True):
    """A submission, and the tenant it is for."""

    tenant: str
    job: Submission


class Intake:
    """Writes to the log. `written` is the last sequence that was acknowledged to this process;
    `waiting` counts submissions that are not acknowledged yet."""

    def __init__(self, client: Client, follower: Follower) -> None:
        self._client = client
        self._follower = follower
        self._writer = GatheringWriter(client.log, give_up_s=GIVE_UP_S, linger_s=GATHER_S, regather_s=GATHER_S)
        self._keyed = asyncio.Semaphore(KEYED_AT_ONCE)
        self._id = new_ulid()
        self._numbers = itertools.count()
        self.written = 0
        self.waiting = 0

    async def close(self) -> None:
        """Stop writing; what was acknowledged is safe."""
        await self._writer.close()

    async def write(self, subject: str, event: Event) -> int:
        """One event; its sequence."""
        seq = await self._writer.put(Outgoing(subject, codec.encode(event), msg_id=new_ulid()))
        self.written = max(self.written, seq)
        return seq

    # ---- submissions --------------------------------------------------------------------------

    async def submit(self, jobs: Sequence[Owned]) -> list[Fate]:
        """Submit jobs; each has its own fate, in order. Raises StoreFull."""
        await self._client.store.check()
        self.waiting += len(jobs)
        try:
            ids = [one.job.job_id or new_job_id(one.job.spec.name) for one in jobs]
            sent = [self._message(one, job_id) for one, job_id in zip(jobs, ids, strict=True)]
            told = iter(await self._writer.put_all([one for one in sent if isinstance(one, Outgoing)]))
            outcomes = [next(told) if isinstance(one, Outgoing) else one for one in sent]
            await self._stored([one for one in outcomes if isinstance(one, int)])
            return [self._fate(*found) for found in zip(jobs, ids, outcomes, strict=True)]
        finally:
            self.waiting -= len(jobs)

    def _message(self, one: Owned, job_id: str) -> Outgoing | EventschedError:
        """The submission of a job that has been checked by the forms already."""
        if job_id in self._follower.state.job_ids:
            return _taken(job_id)
        payload = codec.encode(one.job.spec)
        if len(payload) > codec.PAYLOAD_MAX:
            return InvalidSpec(f"the job is {len(payload)} bytes as JSON", f"at most {codec.PAYLOAD_MAX}")
        msg_id = f"{self._id}.{next(self._numbers)}"
        return Outgoing(subjects.job(one.tenant, job_id, "submitted"), payload, msg_id, expect=0)

    async def _stored(self, seqs: list[int]) -> None:
        """What is stored may still be void where ids are unique in the whole cluster: the fold knows."""
        self.written = max(self.written, *seqs, 0)
        if seqs and self._follower.state.job_id_scope == "cluster":
            await self._follower.at(max(seqs), MIN_SEQ_WAIT_S)

    def _fate(self, one: Owned, job_id: str, outcome: int | EventschedError) -> Fate:
        if isinstance(outcome, AppendError):
            return submit_error(outcome, one.tenant, job_id)
        if isinstance(outcome, EventschedError):
            return outcome
        state = self._follower.state
        if state.job_id_scope == "cluster":
            if state.seq < outcome:
                return WaitTimeout(f"stored as {outcome}; folded up to {state.seq} only", "ask for the job")
            job = state.jobs.get(job_key(one.tenant, job_id))
            if job is None or job.seq != outcome:
                return _taken(job_id)
        return Submitted(job_id, one.tenant, outcome)

    # ---- with a key ---------------------------------------------------------------------------

    async def submit_keyed(self, one: Owned, key: str) -> Fate:
        """Submit a job under an idempotency key; a second time gives the first answer. Raises StoreFull."""
        self.waiting += 1
        try:
            return await self._submit_keyed(one, key)
        finally:
            self.waiting -= 1

    async def _submit_keyed(self, one: Owned, key: str) -> Fate:
        if not 0 < len(key) <= KEY_MAX or not key.isprintable():
            raise ApiError(422, "VALIDATION_ERROR", f"Idempotency-Key: 1 to {KEY_MAX} printable characters")
        subject = subjects.job(one.tenant, "k-" + hashlib.sha256(key.encode()).hexdigest()[:40], "keyed")
        body_hash = hashlib.sha256(codec.encode(one.job.spec) + b"\n" + one.job.job_id.encode()).hexdigest()[:32]
        job_id = one.job.job_id or new_job_id(one.job.spec.name)
        keyed = Outgoing(subject, codec.encode(Keyed(job_id=job_id, body_hash=body_hash)), new_ulid(), expect=0)
        submission = self._message(one, job_id)
        if isinstance(submission, DuplicateJob):  # by this very key, perhaps
            found = await self._first(subject)
            return submission if found is None else await self._again(one.tenant, found, body_hash)
        if not isinstance(submission, Outgoing):
            return submission
        last: AppendError | None = None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GIVE_UP_S
        try:
            await self._client.store.check()
        except StoreFull:
            found = await self._first(subject)
            if found is None:
                raise
            return await self._again(one.tenant, found, body_hash)
        async with self._keyed:
            while last is None or loop.time() < deadline:
                try:
                    seq = await self._client.log.append([keyed, submission])
                except (Conflict, Duplicate) as error:
                    found = await self._first(subject)
                    if found is None:
                        return submit_error(error, one.tenant, job_id)
                    return await self._again(one.tenant, found, body_hash)
                except (Busy, Unavailable, OutcomeUnknown) as error:
                    last = error
                    await asyncio.sleep(RETRY_S * (1 + secrets.randbelow(4)))  # others wait for the same subject
                else:
                    await self._stored([seq])
                    return self._fate(one, job_id, seq)
        return last

    async def _again(self, tenant: str, found: tuple[int, Keyed], body_hash: str) -> Fate:
        keyed_seq, first = found
        if first.body_hash != body_hash:
            return ApiError(409, "IDEMPOTENCY_CONFLICT", "this Idempotency-Key was used for another job")
        seq, state = keyed_seq + 1, self._follower.state  # the submission follows its key
        if state.job_id_scope == "cluster":  # it may have been void
            await self._follower.folded(seq)
            own = job_key(tenant, first.job_id)
            if state.job_ids.get(first.job_id, own) != own:
                return _taken(first.job_id)
        return Submitted(first.job_id, tenant, seq)

    async def _first(self, subject: str) -> tuple[int, Keyed] | None:
        """What is stored under a key, from the stream's leader."""
        body = msgspec.json.encode({"last_by_subj": subject})
        raw = await self._client.link.request(f"$JS.API.STREAM.MSG.GET.{EV}", body)
        found = msgspec.json.decode(raw, type=_Found).message
        if found is None:
            return None
        event = codec.decode(subject, base64.b64decode(found.data))
        return (found.seq, event) if isinstance(event, Keyed) else None


class _FoundMessage(Struct):
    seq: int
    data: str = ""


class _Found(Struct):
    message: _FoundMessage | None = None


def _taken(job_id: str) -> DuplicateJob:
    return DuplicateJob(f"job id {job_id!r} is taken", "choose another id; ids are never used twice")
