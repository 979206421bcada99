"""Entries that are checked together: one signature for a chain, and nothing believed that would not be believed alone."""

from __future__ import annotations

import msgspec
import pytest

from proxy.core.chain_check import ChainCheck
from proxy.core.trust import Trust
from proxy.wire.messages import EMPTY_DIGEST, StreamEntry, StreamHead, SyncUpdate
from proxy.wire.payload import decode, encode
from tests.unit.proxy.core.parties import LOGIN, PROXIES, signed_entry, signed_update


def trust() -> Trust:
    keys = {device: signer.public_key.hex() for device, signer in PROXIES.items()}
    return Trust(login_public_key_hex=LOGIN.public_key.hex(), proxy_keys_hex=keys)


def chain(count: int, *, proxy: str = "csr2") -> list[StreamEntry]:
    entries: list[StreamEntry] = []
    digest = EMPTY_DIGEST
    for seq in range(1, count + 1):
        entries.append(signed_entry(proxy, seq, signed_update(seq), after=digest))
        digest = decode(entries[-1].content, SyncUpdate).chain_digest
    return entries


def opened(entries: list[StreamEntry]) -> list[tuple[StreamEntry, SyncUpdate]]:
    return [(entry, decode(entry.content, SyncUpdate)) for entry in entries]


def altered(entry: StreamEntry, **properties: object) -> StreamEntry:
    content = msgspec.structs.replace(decode(entry.content, SyncUpdate), **properties)
    return msgspec.structs.replace(entry, content=encode(content))


CHAIN = chain(6)
OTHER = (signed_update(99),)


def unsigned(*entries: StreamEntry) -> list[StreamEntry]:
    """Return entries that nobody would believe by themselves."""
    return [altered(entry, signature=bytes(64)) for entry in entries]


def test_one_signature_for_a_chain_of_each_stream() -> None:
    check = ChainCheck(trust(), conference="main")
    other = chain(6, proxy="csr3")
    ours, theirs = [*unsigned(*CHAIN[:3]), CHAIN[3]], [*unsigned(*other[:3]), other[3]]
    mixed = [entry for pair in zip(ours, theirs, strict=True) for entry in pair]
    assert check.refused(opened(mixed)) == {}
    assert check.refused(opened([*unsigned(CHAIN[4]), CHAIN[5]])) == {}  # it goes on from there


def test_chain_goes_on_from_a_snapshot() -> None:
    check = ChainCheck(trust(), conference="main")
    check.install((StreamHead("csr2", 1, 2, decode(CHAIN[1].content, SyncUpdate).chain_digest),))
    assert check.refused(opened([*unsigned(*CHAIN[2:5]), CHAIN[5]])) == {}


def test_after_a_gap_the_first_is_checked_by_itself() -> None:
    after_gap = [CHAIN[2], *unsigned(CHAIN[3], CHAIN[4]), CHAIN[5]]
    assert ChainCheck(trust(), conference="main").refused(opened(after_gap)) == {}
    assert ChainCheck(trust(), conference="main").refused(opened([*unsigned(CHAIN[2]), CHAIN[5]])) == {
        0: "sync_update_forged"
    }


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("what", [{"updates": OTHER}, {"chain_digest": bytes(16)}, {"updates": ()}])
def test_forged_entry_is_refused_and_no_other(at: int, what: dict[str, object]) -> None:
    entries = [*CHAIN[:at], altered(CHAIN[at], **what), *CHAIN[at + 1 :]]
    assert ChainCheck(trust(), conference="main").refused(opened(entries)) == {at: "sync_update_forged"}


def test_forged_last_signature_costs_only_itself() -> None:
    entries = [*CHAIN[:5], altered(CHAIN[5], signature=bytes(64))]
    check = ChainCheck(trust(), conference="main")
    assert check.refused(opened(entries)) == {5: "sync_update_forged"}
    assert check.refused(opened(CHAIN[5:])) == {}


def test_forged_double_does_not_take_the_true_one_with_it() -> None:
    double = altered(CHAIN[0], updates=OTHER)
    assert ChainCheck(trust(), conference="main").refused(opened([double, *CHAIN])) == {0: "sync_update_forged"}
    assert ChainCheck(trust(), conference="main").refused(opened([*CHAIN, double])) == {6: "sync_update_forged"}


def test_chain_of_another_conference_is_none_of_this() -> None:
    refused = ChainCheck(trust(), conference="other").refused(opened(CHAIN))
    assert set(refused) == set(range(6))
