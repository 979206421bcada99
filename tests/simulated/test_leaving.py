"""A device leaves at a moment that suits nobody. Found by random schedules."""

from __future__ import annotations

from proxy.core.events import CloseRequested, JoinRequested
from proxy.records import SessionChanged
from tests.simulated.conference import TIERS, Conference


def test_leaving_while_the_session_is_interrupted() -> None:
    """fuzz-schedules 25: the close went to a proxy that did not know the device, and what it had not acked was lost."""
    conference = Conference(TIERS)
    conference.join()
    link = next(link.name for link in conference.topology.links_of("ue1"))
    conference.network.block(link)
    conference.run_for(0.1)
    conference.publish("ue1", count=3)
    conference.run_for(1.0)
    assert conference.network.client("ue1").state == "suspect"
    conference.close("ue1")
    conference.run_for(0.5)
    conference.network.unblock(link)
    conference.assert_invariants()
    client = conference.network.client("ue1")
    assert (client.state, client.unacked, client.queued) == ("closed", 0, 0)


def test_leaving_before_the_login_is_answered() -> None:
    """fuzz-schedules 55, 118, 171: the request was refused, and the device joined all the same."""
    conference = Conference(TIERS)
    conference.join([ue for ue in conference.ues if ue != "ue1"])
    conference.network.send("ue1", JoinRequested())
    conference.network.send("ue1", CloseRequested())
    conference.run_for(3.0)
    conference.assert_invariants()
    states = [
        record.state
        for record in conference.network.records
        if isinstance(record, SessionChanged) and record.device == "ue1"
    ]
    assert states == ["login", "closed"]
    conference.join(["ue1"])
    conference.assert_invariants()
