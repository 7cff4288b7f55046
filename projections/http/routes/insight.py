"""Looking deeper: why a job waits, and the service and its cluster as metrics."""

from __future__ import annotations

from litestar import Response
from litestar.params import FromPath

from eventsched import query
from eventsched.asking import ask_replicas
from eventsched.explanation import Explanation
from eventsched.projections.http import metrics
from eventsched.projections.http.bodies import Answer, answer, encode, reads
from eventsched.projections.http.desk import Asked, come_in
from eventsched.projections.http.routes.jobs import MinSeq, Tenant


@reads("/jobs/{job_id:str}/explain", Explanation, summary="Why a job waits, or why it went there", tags=["jobs"])
async def explain(job_id: FromPath[str], request: Asked, tenant: Tenant = "", min_seq: MinSeq = 0) -> Answer:
    """Every stage is asked about this one job: its place in the order, its tenant's quota, what each node refuses
    it for. A job with a run shows the decision as the log holds it."""
    desk, caller = come_in(request)
    view = await desk.job(caller, job_id, tenant, min_seq)
    asked = query.ExplainRequest(view.job_id, view.tenant, max(min_seq, desk.intake.written))
    found: Explanation = await desk.ask(query.EXPLAIN, asked, Explanation)
    if not caller.may("operator") and found.place is not None:
        found.place.first = [one for one in found.place.first if caller.sees(one.tenant)]
    return answer(encode(found), seq=found.seq)


@reads("/metrics", str, summary="Metrics for Prometheus", tags=["health"], media=metrics.CONTENT_TYPE)
async def scrape(request: Asked) -> Answer:
    """Operators only, as tenants are named in it. Taken when asked for; nothing is counted in between."""
    desk, caller = come_in(request)
    caller.require("operator")
    desk.check_ready()
    follower = desk.follower
    reports = await ask_replicas(desk.client.link)
    body = metrics.render(
        follower.state,
        follower.now_ms(),
        lag=follower.pending,
        mismatches=len(follower.replica.mismatches),
        replicas=reports,
    )
    return Response(body, media_type=metrics.CONTENT_TYPE)


ROUTES = [explain, scrape]
