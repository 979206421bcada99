"""Entries that are checked together: one signature for a chain, and nothing believed that would not be believed alone."""

from __future__ import annotations

import msgspec
import pytest

from proxy.core.chain_check import ChainCheck
from proxy.core.trust import Trust
from proxy.wire.messages import EMPTY_DIGEST, StreamEntry, StreamHead, SyncUpdate, decode, encode
from tests.unit.proxy.core.parties import LOGIN, PROXIES, signed_entry, signed_update


class CountingTrust(Trust):
    """Counts the signatures that it looks at."""

    checks = 0

    def check_entry(self, conference: str, entry: StreamEntry, sync_update: SyncUpdate) -> None:
        self.checks += 1
        super().check_entry(conference, entry, sync_update)


def trust() -> CountingTrust:
    keys = {device: signer.public_key.hex() for device, signer in PROXIES.items()}
    return CountingTrust(login_public_key_hex=LOGIN.public_key.hex(), proxy_keys_hex=keys)


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


def test_one_signature_for_a_chain_of_each_stream() -> None:
    trusted = trust()
    check = ChainCheck(trusted, conference="main")
    mixed = [entry for pair in zip(CHAIN, chain(6, proxy="csr3"), strict=True) for entry in pair]
    assert check.refused(opened(mixed[:8])) == {}
    assert trusted.checks == 2
    assert check.refused(opened(mixed[8:])) == {}  # it goes on from there
    assert trusted.checks == 4


def test_chain_goes_on_from_a_snapshot() -> None:
    trusted = trust()
    check = ChainCheck(trusted, conference="main")
    check.install((StreamHead("csr2", 1, 2, decode(CHAIN[1].content, SyncUpdate).chain_digest),))
    assert check.refused(opened(CHAIN[2:])) == {}
    assert trusted.checks == 1


def test_after_a_gap_the_first_is_checked_by_itself() -> None:
    trusted = trust()
    assert ChainCheck(trusted, conference="main").refused(opened(CHAIN[2:])) == {}
    assert trusted.checks == 2


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
