"""Names and their URIs: the packet format's "NDN URI Scheme", naming conventions NDN-0022, and python-ndn's opinion."""

import pytest
from ndn.encoding import Name

from proxy.wire.name import COMPONENTS_MAX, boundaries, from_uri, split, split_implicit_digest, to_uri
from proxy.wire.tlv import MalformedError

DIGEST = "00112233445566778899aabbccddeeff" * 2

#: URI -> components, octet by octet
NAMES = [
    ("/", ""),
    ("/a", "080161"),
    ("/hconf/csr1", "080568636f6e66 080463737231"),
    ("/hconf/32=all", "080568636f6e66 2003616c6c"),  # type 32: keyword
    ("/a/v=1", "080161 360101"),  # type 54: version
    ("/a/seq=700", "080161 3a0202bc"),  # type 58: sequence number
    ("/v=65536/seq=4294967296", "360400010000 3a080000000100000000"),
    ("/a%20b/%00%FF", "0803612062 080200ff"),
    ("/~_-", "08037e5f2d"),
    ("/...", "0800"),  # a component of n periods is written with n + 3
    ("/....", "08012e"),
    ("/a/.....", "080161 08022e2e"),
    ("/a.b", "0803612e62"),
    ("/32=...", "2000"),
    ("/253=a", "fd00fd0161"),
    ("/65535=a", "fdffff0161"),
    ("/54=%01%02%03", "3603010203"),  # no number: three octets
    ("/58=%00%01", "3a020001"),  # no number of ours: not its shortest form
    (f"/sha256digest={DIGEST}", "0120" + DIGEST),
    (f"/a/params-sha256={DIGEST}", "080161 0220" + DIGEST),
]  # fmt: skip


@pytest.mark.parametrize(("uri", "encoded"), NAMES)
def test_uri_to_name_and_back(uri: str, encoded: str) -> None:
    name = bytes.fromhex(encoded)
    assert from_uri(uri) == name
    assert to_uri(name) == uri


@pytest.mark.parametrize("uri", [uri for uri, _ in NAMES if not {"...", "54=", "58="} & {uri[-3:], uri[1:4]}])
def test_python_ndn_agrees(uri: str) -> None:
    """Left out is what it does differently: it knows no rule of periods and reads numbers of any length."""
    theirs = Name.from_str(uri)
    assert b"".join(bytes(part) for part in theirs) == from_uri(uri)
    assert Name.to_str(theirs) == uri


@pytest.mark.parametrize(
    ("uri", "name"),
    [("/a/", "080161"), ("/54=%01", "360101"), ("/%61", "080161"), ("/8=a", "080161"), ("/32=%62", "200162")],
)
def test_other_spellings_of_a_name(uri: str, name: str) -> None:
    assert from_uri(uri).hex() == name


@pytest.mark.parametrize(
    "uri",
    ["", "a", "hconf/csr1", "//a", "/a//b", "/.", "/a/..", "/x=1", "/0=a", "/65536=a", "/v=-1", "/v=x", "/seq=1.5",
     "/seq=18446744073709551616", "/sha256digest=00", "/params-sha256=zz"],
)  # fmt: skip
def test_what_is_no_uri(uri: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several of them are int()'s or fromhex()'s
        from_uri(uri)


def test_what_ends_in_an_implicit_digest_and_what_only_looks_so() -> None:
    digest = bytes.fromhex(DIGEST)
    assert split_implicit_digest(from_uri(f"/a/b/sha256digest={DIGEST}")) == (from_uri("/a/b"), digest)
    assert split_implicit_digest(from_uri(f"/a/params-sha256={DIGEST}")) is None
    assert split_implicit_digest(from_uri(f"/sha256digest={DIGEST}/a")) is None
    assert split_implicit_digest(from_uri(f"/sha256digest={DIGEST}")) is None  # of no name
    assert split_implicit_digest(b"\x08\x24ab\x01\x20" + digest) is None  # the end of a generic component


def test_boundaries() -> None:
    name = from_uri("/hconf/csr1/32=sync") + b"\x08\xfd\x01\x00" + bytes(256) + b"\xfd\x01\x00\x01a"
    assert boundaries(name) == [7, 13, 19, 279, 284]
    assert [kind for kind, _ in split(name)] == [8, 8, 32, 8, 256]


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param("08", id="type without length"),
        pytest.param("080161 0802", id="value missing"),
        pytest.param("080161 080261", id="value cut short"),
        pytest.param("08fd0001 61", id="length not in its shortest form"),
        pytest.param("fd", id="type cut short"),
        pytest.param("0800" * (COMPONENTS_MAX + 1), id="too many components"),
        pytest.param("0000", id="type 0"),
        pytest.param("0103 616263", id="implicit digest of 3 octets"),
        pytest.param("0221" + 33 * "00", id="digest of parameters of 33 octets"),
        pytest.param("080161 0000", id="type 0 behind others"),
    ],
)
def test_broken_name(encoded: str) -> None:
    name = bytes.fromhex(encoded)
    for function in (boundaries, split, to_uri):
        with pytest.raises(MalformedError):
            function(name)


def test_component_type_beyond_two_octets() -> None:
    with pytest.raises(MalformedError):
        split(bytes.fromhex("fe00010000 0161"))


def test_as_many_components_as_allowed() -> None:
    assert len(boundaries(bytes.fromhex("0800" * COMPONENTS_MAX))) == COMPONENTS_MAX
