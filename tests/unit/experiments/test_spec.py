"""Every mistake in an experiment file ends with one message that says where, what, and what would be right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from experiments import spec
from experiments.flow import plan_of
from experiments.spec import (
    ConferenceSection,
    Experiment,
    ForwardingSection,
    LinkDown,
    PoissonWorkload,
    load_experiment,
)
from experiments.spec_workloads import MediaWorkload, UpdateWorkload
from proxy import config
from proxy.wire.messages import BODY_MAX_BYTES, FRAME_MAX_BYTES, OBJECT_MAX_BYTES
from tests.unit.experiments.spec_files import GOOD, Refusal
from topologies.errors import InputError
from topologies.model import LinkProperties

QUICKSTART = Path(spec.__file__).with_name("quickstart.toml")


def line_of(text: str, start: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(start))


# --- a good file


def test_a_good_file_is_resolved(load: Callable[..., Experiment]) -> None:
    experiment = load()
    assert experiment.settings.name == "good"
    assert experiment.topology.csrs == ("NewYork", "Chicago")
    assert experiment.topology.link("Chicago-ue4").properties == LinkProperties(delay_ms=4.0)
    assert experiment.topology.link("Chicago-NewYork").properties.delay_ms == 5.7308  # from the length of its fibre
    assert experiment.workloads == (
        PoissonWorkload(rate_per_s=1.0, publishers=("ue1", "ue2", "ue3", "ue4", "ue5", "ue6"), stop_s=20.0),
    )
    assert experiment.faults == (LinkDown(at_s=8.0, target="Chicago-NewYork", for_s=4.0),)
    assert experiment.captures == ("Chicago-NewYork",)


def test_the_resolved_form_has_defaults_and_is_json(load: Callable[..., Experiment]) -> None:
    resolved = msgspec.json.decode(msgspec.json.encode(load().resolved))
    assert resolved["topology"] == {
        "name": "topozoo/Abilene",
        "csr_nodes": ["NewYork", "Chicago"],
        "ues_per_csr": 3,
        "ue_links": 1,
    }
    assert resolved["fault"][0]["kind"] == "link-down"
    assert resolved["experiment"]["settle_s"] == 10.0


def test_the_quickstart_breaks_a_link_that_the_conference_uses() -> None:
    experiment = load_experiment(QUICKSTART)
    assert len(experiment.topology.csrs) == 4
    assert len(experiment.topology.ues) == 12
    (fault,) = experiment.faults
    link = experiment.topology.link(fault.target)
    assert {link.a, link.b} <= set(experiment.topology.csrs)


def test_the_smallest_file_will_do(load: Callable[..., Experiment]) -> None:
    experiment = load('[experiment]\nname = "x"\nduration_s = 1\n[topology]\nname = "tiers"\n')
    assert experiment.topology.name == "tiers"
    assert experiment.conference == ConferenceSection()
    assert (experiment.workloads, experiment.faults, experiment.captures) == ((), (), ())


def test_directions_of_a_link_may_differ(load: Callable[..., Experiment]) -> None:
    """What is for one sender beats what is for both ways in the same table; a link's table beats that of its tier."""
    tables = """
[links.access.from.ue]
rate_mbps = 1
queue_bytes = 30000
[links."NewYork-ue1"]
loss_ratio = 0.1
[links."NewYork-ue1".from.NewYork]
delay_ms = 9
queue_packets = 7
[links."NewYork-ue2"]
queue_packets = 5
[links."NewYork-ue3".from.ue3]
rate_mbps = 2
mtu_bytes = 1280
jitter_distribution = "normal"
jitter_keeps_order = false
"""
    topology = load(GOOD.replace("[conference]", f"{tables}[conference]")).topology
    up = LinkProperties(delay_ms=4.0, rate_mbps=1.0, queue_bytes=30_000)
    first = topology.link("NewYork-ue1")
    assert first.properties_from("NewYork") == LinkProperties(delay_ms=9.0, loss_ratio=0.1, queue_packets=7)
    assert first.properties_from("ue1") == dataclasses.replace(up, loss_ratio=0.1)
    second = topology.link("NewYork-ue2")
    assert second.properties == LinkProperties(delay_ms=4.0, queue_packets=5)
    assert second.back == LinkProperties(delay_ms=4.0, rate_mbps=1.0, queue_packets=5)  # the bound given last
    third = topology.link("NewYork-ue3")
    assert third.properties == LinkProperties(delay_ms=4.0)
    assert third.back == dataclasses.replace(
        up, rate_mbps=2.0, mtu_bytes=1_280, jitter_distribution="normal", jitter_keeps_order=False
    )
    assert topology.link("Chicago-NewYork").back is None


def test_bursts_of_loss_are_read(load: Callable[..., Experiment]) -> None:
    table = "[links.core]\ngood_to_bad_ratio = 0.01\nbad_to_good_ratio = 0.25\nbad_loss_ratio = 0.8\n"
    properties = load(GOOD.replace("[conference]", f"{table}[conference]")).topology.link("Chicago-NewYork").properties
    assert (properties.good_to_bad_ratio, properties.bad_to_good_ratio, properties.bad_loss_ratio) == (0.01, 0.25, 0.8)


def test_a_links_own_table_beats_that_of_its_tier(load: Callable[..., Experiment]) -> None:
    tables = '[links."ue1-NewYork"]\nloss_ratio = 0.1\ndelay_ms = 9\n[links.core]\njitter_ms = 0.5\n'
    topology = load(GOOD + tables).topology
    assert topology.link("NewYork-ue1").properties == LinkProperties(delay_ms=9.0, loss_ratio=0.1)
    assert topology.link("NewYork-ue2").properties == LinkProperties(delay_ms=4.0)
    assert topology.link("Chicago-NewYork").properties == LinkProperties(delay_ms=5.7308, jitter_ms=0.5)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_experiment(path).settings.name == "good"


def test_ues_in_other_conferences(load: Callable[..., Experiment]) -> None:
    ue1, ue2, *rest = load(GOOD).topology.ues
    experiment = load(GOOD, f'conference.others={{side = ["{ue2}"]}}')
    assert experiment.conference_of == {ue1: "main", ue2: "side"} | dict.fromkeys(rest, "main")


@pytest.mark.parametrize(
    ("others", "problem"),
    [
        ('{side = ["ue99"]}', "there is no UE `ue99`"),
        ('{side = ["ue1"], back = ["ue1"]}', "`ue1` is in `side` too"),
        ('{main = ["ue1"]}', "`main` is the conference of all"),
    ],
)
def test_wrong_conferences_are_explained(load: Callable[..., Experiment], others: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load(GOOD, f"conference.others={others}")


def test_a_longest_hold_down_is_not_shorter_than_the_first(load: Callable[..., Experiment]) -> None:
    with pytest.raises(InputError, match=r"return_hold_down_max_s = 60 is less than return_hold_down_s \(61 s\)"):
        load(GOOD, "conference.return_hold_down_s=61")


def test_settings_of_the_conference_fit_the_node_configuration() -> None:
    sections = ConferenceSection().node_sections()
    proxy = msgspec.convert(sections["proxy"] | {"forwarder_socket": "s", "key_seed_hex": ""}, config.ProxyConfig)
    assert proxy == config.ProxyConfig("s", "")
    settings = sections["forwarder"] | ForwardingSection().node_section()
    forwarder = msgspec.convert(settings | {"faces": (), "routes": ()}, config.ForwarderConfig)
    assert forwarder == config.ForwarderConfig((), ())
    client = msgspec.convert(sections["client"] | {"key_seed_hex": ""}, config.ClientConfig)
    assert client == config.ClientConfig("")
    login = msgspec.convert(
        sections["login"] | {"key_seed_hex": "", "devices": {}, "ranked_proxies": {}}, config.LoginConfig
    )
    assert login == config.LoginConfig("", {}, {})


def test_forwarding(load: Callable[..., Experiment]) -> None:
    tables = '[forwarding]\nunreliable = ["/media"]\nlink_reliability = "on"\nreturn_hold_down_s = 0\n'
    experiment = load(GOOD + tables + '[forwarding.strategies]\n"/all" = "multicast"\n"/" = "best-route"\n')
    settings = plan_of(experiment, run_id="r", run_dir=Path("r")).forwarder_settings
    forwarder = msgspec.convert({**settings, "faces": (), "routes": ()}, config.ForwarderConfig)
    assert (forwarder.unreliable_prefixes, forwarder.link_reliability) == (("/media",), "on")
    assert forwarder.return_hold_down_s == 0
    assert {choice.prefix: choice.strategy for choice in forwarder.strategies} == {
        "/hconf/32=all": "multicast",
        "/hconf/32=group": "multicast",
        "/all": "multicast",
        "/": "best-route",
    }


@pytest.mark.parametrize(
    ("setting", "place", "problem"),
    [
        ('unreliable = ["/a", "media"]', "[forwarding]: unreliable, item 2", "no name prefix"),
        ('unreliable = ["/x=1"]', "[forwarding]: unreliable, item 1", "no component type"),
        ('strategies = { "/a//b" = "multicast" }', "[forwarding]: strategies", "no name prefix"),
        (f'unreliable = ["{33 * "/a"}"]', "[forwarding]: unreliable, item 1", "more than 32 components"),
        ('strategies = { "/a" = "fastest" }', "[forwarding]: strategies", "fastest"),
        ("return_hold_down_s = 60", "[forwarding]: return_hold_down_s", "above return_hold_down_max_s = 30"),
    ],
)
def test_mistakes_in_forwarding(load: Callable[..., Experiment], setting: str, place: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        load(f"{GOOD}[forwarding]\n{setting}\n")
    assert place in caught.value.where
    assert problem in caught.value.problem


def test_the_largest_body_is_that_of_the_wire_format(load: Callable[..., Experiment]) -> None:
    workload = load(GOOD, f"workload.1.size_bytes={BODY_MAX_BYTES}").workloads[0]
    assert isinstance(workload, UpdateWorkload)
    assert workload.size_bytes == BODY_MAX_BYTES
    with pytest.raises(InputError, match=f"above {BODY_MAX_BYTES}"):
        load(GOOD, f"workload.1.size_bytes={BODY_MAX_BYTES + 1}")


def test_objects_and_media_have_the_limits_of_the_wire_format(load: Callable[..., Experiment]) -> None:
    data = GOOD.replace('kind = "poisson"\nrate_per_s = 1.0', 'kind = "objects"\nsize_bytes = 1')
    load(data, f"workload.1.size_bytes={OBJECT_MAX_BYTES}")
    with pytest.raises(InputError, match=f"above {OBJECT_MAX_BYTES}"):
        load(data, f"workload.1.size_bytes={OBJECT_MAX_BYTES + 1}")
    media = GOOD.replace('kind = "poisson"\nrate_per_s = 1.0', 'kind = "media"\nframes_per_s = 50\nframe_bytes = 160')
    (workload,) = load(media, f"workload.1.frame_bytes={FRAME_MAX_BYTES}").workloads
    assert isinstance(workload, MediaWorkload)
    assert workload.stop_s == 20
    assert workload.publishers
    with pytest.raises(InputError, match=f"above {FRAME_MAX_BYTES}"):
        load(media, f"workload.1.frame_bytes={FRAME_MAX_BYTES + 1}")
    with pytest.raises(InputError, match="rate_per_s"):
        load(media, "workload.1.rate_per_s=1")


# --- form: keys, types, ranges, units, words


@pytest.mark.parametrize(
    ("old", "new", "place", "problem", "remedy"),
    [
        # unknown keys and tables
        ("duration_s = 20", "duration = 20", "[experiment]: duration", "unknown key `duration`", "`duration_s`"),
        ("delay_ms = 4", "delay = 4", "[links.access]: delay", "unknown key `delay`", "did you mean `delay_ms`"),
        ("delay_ms = 4", "delay_s = 4", "[links.access]: delay_s", "unknown key", "`delay_ms` in milliseconds"),
        ("delay_ms = 4", "loss_percent = 4", "[links.access]: loss_percent", "unknown key", "`loss_ratio`, a fraction"),
        ("delay_ms = 4", "bw = 4", "[links.access]: bw", "unknown key", "`rate_mbps` in Mbit/s"),
        ('mode = "hybrid"', "foo = 1", "[conference]: foo", "unknown key `foo`", "the keys here are name, mode"),
        ("at_s = 8.0", "at = 8.0", "[[fault]] 1: at", "unknown key `at`", "did you mean `at_s` in seconds"),
        ("target =", "link =", "[[fault]] 1: link", "unknown key `link`", "did you mean `target`"),
        ("csr_nodes", "csr_node", "[topology]: csr_node", "unknown key", "did you mean `csr_nodes`"),
        ("[links.access]", "[link.access]", "[link]", "no table `link`", "did you mean [links]"),
        ("[[fault]]", "[[faults]]", "[faults]", "no table `faults`", "did you mean [[fault]]"),
        ("[capture]", "[xyz]", "[xyz]", "no table `xyz`", "the tables are [experiment], [topology]"),
        ("for_s = 4.0", "for_s = 4.0\nloss_ratio = 1", "[[fault]] 1: loss_ratio", "does not belong to", "use impair"),
        # missing ones
        ("duration_s = 20", "", "[experiment]", "`duration_s` is missing", "add `duration_s = …`, a number above 0"),
        ('kind = "poisson"', "", "[[workload]] 1", "`kind` is missing", "`poisson`"),
        ('kind = "poisson"', 'type = "poisson"', "[[workload]] 1", "`kind` is missing", "rename `type` to `kind`"),
        ('name = "topozoo/Abilene"', "", "[topology]", "`name` is missing", 'name = "tiers"'),
        ("[experiment]", "[conference]", "a.toml", "not valid TOML", "each table stands once"),
        ("[topology]", "[experiment.topology]", "[experiment]: topology", "unknown key `topology`", "name, duration_s"),
        # types
        ("duration_s = 20", "duration_s = true", "duration_s", "is true or false, not a number", "a number above 0"),
        ("duration_s = 20", "duration_s = [20]", "duration_s", "is a list, not a number", "a number above 0"),
        ("duration_s = 20", "duration_s = 2024-01-01", "duration_s", "is a date or time", "a number above 0"),
        ("duration_s = 20", "duration_s = 20\nseed = 1.5", "seed", "is not a whole number", "without a decimal point"),
        ('name = "good"', "name = 5", "name", "is a number, not text", 'name = "…"'),
        ('links = ["NewYork-Chicago"]', 'links = "x"', "[capture]: links", "`links` is text, not a list", '["…"]'),
        ('links = ["NewYork-Chicago"]', "links = [1]", "links, item 1", "is a number, not text", "double quotes"),
        ("[[fault]]", "[fault]", "[fault]", "is a table, not a list", "write [[fault]], in double brackets"),
        ("[experiment]", "[[experiment]]", "[experiment]", "is a list", "write [experiment], in single brackets"),
        ("[links.access]", "[links]", "[links.delay_ms]", "is a number, not a table", "below [links.access]"),
        # units
        ("duration_s = 20", 'duration_s = "20 s"', "duration_s", "is text, not a number", "(seconds): duration_s = 20"),
        ("delay_ms = 4", 'delay_ms = "4ms"', "delay_ms", "is text, not a number", "(milliseconds): delay_ms = 4"),
        ("delay_ms = 4", "loss_ratio = 5", "loss_ratio", "is above 1", "it is a fraction; for 5 % write 0.05"),
        ("duration_s = 20", "duration_s = 9000000", "duration_s", "is above 86400", "9000000 ms, that is 9000"),
        # ranges
        ("duration_s = 20", "duration_s = 0", "duration_s", "is not above 0", "above 0 up to 86400 (seconds)"),
        ("duration_s = 20", "duration_s = nan", "duration_s", "is not finite", "a number above 0"),
        ("delay_ms = 4", "delay_ms = -1", "delay_ms", "is below 0", "a number from 0 to 60000"),
        ("delay_ms = 4", "queue_packets = 0", "queue_packets", "is below 1", "a whole number from 1 to 100000"),
        ("delay_ms = 4", f"queue_packets = {10**40}", "queue_packets", "is above 100000", "a whole number"),
        ("at_most = 1.15", "at_most = inf", "[[expect]] 1: at_most", "is not finite", "a number"),
        ("at_most = 1.15", f"at_most = {10**400}", "[[expect]] 1: at_most", "is above", "a number"),
        ("rate_per_s = 1.0", "rate_per_s = 1e6", "rate_per_s", "is above 10000", "(per second)"),
        # words
        ('mode = "hybrid"', 'mode = "hybird"', "[conference]: mode", 'mode = "hybird"', "did you mean `hybrid`?"),
        (
            'mode = "hybrid"',
            "mode = 1",
            "[conference]: mode",
            "mode = 1 is unknown",
            "`central`, `hybrid`, `psync`, `pull`, `push`, `svs`",
        ),
        ('kind = "poisson"', 'kind = "posson"', "[[workload]] 1: kind", "unknown", "did you mean `poisson`?"),
        ('kind = "link-down"', 'kind = "link_down"', "[[fault]] 1: kind", "unknown", "did you mean `link-down`?"),
        ('kind = "link-down"', "kind = 3", "[[fault]] 1: kind", "kind = 3 is unknown", "`link-down`"),
        ('name = "good"', 'name = "a/b"', "name", "does not have the right form", "letters, digits"),
        ('metric = "deliveries.ratio.p50"', 'metric = "a b"', "metric", "right form", "such as `deliveries.ratio.p50`"),
        ('target = "NewYork-Chicago"', 'target = ""', "target", "is empty", 'target = "…"'),
        ('target = "NewYork-Chicago"', f'target = "{"x" * 300}"', "target", "300 characters", "an existing one"),
    ],
)
def test_a_wrong_form_is_refused(refusal: Refusal, old: str, new: str, place: str, problem: str, remedy: str) -> None:
    error = refusal(old, new)
    assert place in error.where
    assert problem in error.problem
    assert remedy in error.remedy


def test_the_line_is_that_of_the_key(refusal: Refusal) -> None:
    error = refusal("for_s = 4.0", "for_s = -4.0")
    assert error.where.endswith(f"a.toml:{line_of(GOOD, 'for_s')}: [[fault]] 1: for_s")
    assert refusal("duration_s = 20", "").where.endswith("a.toml:1: [experiment]")


def test_a_second_entry_is_told_from_the_first(refusal: Refusal) -> None:
    text = GOOD + '[[fault]]\nkind = "link-up"\ntarget = "NewYork-Chicago"\n'
    error = refusal(text=text)
    assert error.where.endswith(f"a.toml:{len(GOOD.splitlines()) + 1}: [[fault]] 2")
    assert error.problem == "`at_s` is missing"


# --- meaning: names, targets, times, bounds


@pytest.mark.parametrize(
    ("old", "new", "place", "problem", "remedy"),
    [
        ("topozoo/Abilene", "topozoo/Abilen", "[topology]: name", "not a known topology", "`topozoo/Abilene`"),
        ("topozoo/Abilene", "tiers", "[topology]: csr_nodes", "unknown key", "did you mean `csrs`"),
        ('"NewYork", "Chicago"', '"New York"', "[topology]: csr_nodes", "no node `New York`", "`NewYork`"),
        ('"NewYork", "Chicago"', "", "[topology]: csr_nodes", "is empty", "name at least one"),
        ('csr_nodes = ["NewYork", "Chicago"]', "csrs = 12", "[topology]: csrs", "do not fit", "use at most 11"),
        (
            'csr_nodes = ["NewYork", "Chicago"]',
            "csrs = 11\nues_per_csr = 1000000",
            "[topology]: ues_per_csr",
            "too many for the address plan",
            "lower ues_per_csr",
        ),
        ("[links.access]", "[links.acess]", "[links.acess]", "no link `acess`", "did you mean `access`?"),
        ("[links.access]", "[links.uplink]", "[links.uplink]", "no links of the tier uplink", "core, access, login"),
        ("[links.access]", '[links."ue1-ue2"]', '[links."ue1-ue2"]', "no link `ue1-ue2`", ""),
        (
            "[conference]",
            '[links."Chicago-NewYork"]\n[links."NewYork-Chicago"]\n[conference]',
            '[links."NewYork-Chicago"]',
            "has two tables",
            "merge",
        ),
        (
            "[conference]",
            '[links."NewYork-Chicago"]\n[links."NewYork-Chicago".from.Denver]\nloss_ratio = 0.1\n[conference]',
            '[links."NewYork-Chicago"]: from.Denver',
            "no end of Chicago-NewYork",
            "Chicago or NewYork",
        ),
        (
            "[conference]",
            "[links.access.from.login]\nloss_ratio = 0.1\n[conference]",
            "[links.access]: from.login",
            "no link of the tier access has an end of the role `login`",
            "use csr or ue",
        ),
        (
            "[conference]",
            "[links.core.from.core]\nloss_ratio = 0.1\n[conference]",
            "[links.core]: from.core",
            "are of the role core: that is no direction",
            '[links."',
        ),
        (
            "[conference]",
            "[links.core]\nqueue_bytes = 9000\nqueue_packets = 9\n[conference]",
            "[links.core]: queue_bytes",
            "by packets and by bytes",
            "not both",
        ),
        (
            "[conference]",
            "[links.access.from.ue]\nqueue_bytes = 9000\nqueue_packets = 9\n[conference]",
            "[links.access]: from.ue.queue_bytes",
            "by packets and by bytes",
            "not both",
        ),
        (
            "[conference]",
            "[links.core]\ngood_to_bad_ratio = 0.01\n[conference]",
            "[links.core]: good_to_bad_ratio",
            "would never end",
            "give bad_to_good_ratio",
        ),
        (
            'kind = "link-down"',
            'kind = "impair"\ngood_to_bad_ratio = 0.01',
            "[[fault]] 1: good_to_bad_ratio",
            "would never end",
            "give bad_to_good_ratio",
        ),
        (
            'kind = "link-down"',
            'kind = "impair"\nqueue_bytes = 5000\nqueue_packets = 5',
            "[[fault]] 1: queue_bytes",
            "by packets and by bytes",
            "not both",
        ),
        ('target = "NewYork-Chicago"', 'target = "Chicago-NewYrk"', "target", "no link", "`Chicago-NewYork`?"),
        ('target = "NewYork-Chicago"', 'target = "Chicago"', "target", "no link", "`Chicago` is a node; its links are"),
        ('target = "NewYork-Chicago"', 'target = "NewYork-Seattle"', "target", "no link `NewYork-Seattle`", ""),
        ('links = ["NewYork-Chicago"]', 'links = ["a-b"]', "[capture]: links, item 1", "no link `a-b`", "use one of"),
        ('kind = "poisson"', 'kind = "poisson"\npublishers = []', "publishers", "is empty", "leave `publishers` out"),
        ('kind = "poisson"', 'kind = "poisson"\npublishers = ["ue7"]', "item 1", "no UE `ue7`", "ue1 to ue6"),
        ('kind = "poisson"', 'kind = "poisson"\npublishers = ["Denver"]', "item 1", "no UE", "`Denver` is a core"),
        ('kind = "poisson"', 'kind = "poisson"\npublishers = ["ue1", "ue1"]', "item 2", "named twice", "once"),
        (
            'kind = "poisson"',
            'kind = "once"\nat_s = 1\n[[workload]]\nkind = "poisson"\nat_s = 2',
            "at_s",
            "poisson",
            "use once",
        ),
        (
            'kind = "poisson"',
            'kind = "once"\nat_s = 20\n[[workload]]\nkind = "poisson"',
            "at_s",
            "end of the run",
            "less than 20",
        ),
        (
            'kind = "poisson"',
            f'kind = "once"\nat_s = 1\ntext = "{"ü" * 3501}"\n[[workload]]\nkind = "poisson"',
            "text",
            "7002 bytes",
            "at most 7000",
        ),
        (
            'kind = "poisson"',
            'kind = "poisson"\nstop_s = 21',
            "stop_s",
            "after the end of the run (20 s)",
            "at most 20",
        ),
        ('kind = "poisson"', 'kind = "poisson"\nstart_s = 20', "start_s", "not before its stop", "less than 20"),
        ("at_s = 8.0", "at_s = 20", "[[fault]] 1: at_s", "not before the end of the run", "use less than 20"),
        ("for_s = 4.0", "for_s = 14", "[[fault]] 1: for_s", "would end at 22 s", "use at most 12"),
        ('kind = "link-down"', 'kind = "impair"', "[[fault]] 1", "changes nothing", "give delay_ms"),
        ("at_most = 1.15", "", "[[expect]] 1", "has no bound", "add at_most, at_least or equals"),
        ("at_most = 1.15", "at_most = 1\nat_least = 2", "at_least", "at_least = 2 is above at_most = 1", "exchange"),
        ("at_most = 1.15", "at_most = 1\nequals = 1", "equals", "no meaning", "leave them out"),
        ('links = ["NewYork-Chicago"]', 'links = ["NewYork-Chicago", "Chicago-NewYork"]', "item 2", "twice", "once"),
    ],
)
def test_a_wrong_meaning_is_refused(
    refusal: Refusal, old: str, new: str, place: str, problem: str, remedy: str
) -> None:
    error = refusal(old, new)
    assert place in error.where
    assert problem in error.problem
    assert remedy in error.remedy


def test_a_disconnected_topology_is_refused(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = {"nodes": [{"id": 0, "name": "Here"}, {"id": 1, "name": "There"}], "edges": []}
    monkeypatch.setattr("topologies.topohub_source.json.loads", lambda _: cut)
    error = refusal('csr_nodes = ["NewYork", "Chicago"]', "csrs = 1")
    assert error.where.endswith("[topology]: name")
    assert "disconnected: no path through routers joins Here to There" in error.problem


def test_the_metrics_of_a_fault_are_known_where_there_is_the_fault(
    refusal: Refusal, load: Callable[..., Experiment]
) -> None:
    assert load(GOOD, "expect.1.metric=recovery.f1.outage_ms.max").expectations[0].metric.startswith("recovery.f1")
    assert "no metric" in refusal("", "", "expect.1.metric=recovery.f2.outage_ms.max").problem


def test_an_unknown_metric_is_refused(refusal: Refusal) -> None:
    error = refusal("ratio.p50", "ratio.p55")
    assert error.where.endswith("[[expect]] 1: metric")
    assert error.remedy.startswith("did you mean deliveries.ratio.p50")
