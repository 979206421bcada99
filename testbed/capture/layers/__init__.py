"""Scapy layers of everything that nodes send: NDN packets, NDNLPv2 link packets, our messages.

>>> from testbed.capture.layers import Interest, Name, Nonce
>>> interest = Interest(value=[Name.from_uri("/a/b"), Nonce(value=7)])
>>> interest[Nonce].value = 8
>>> bytes(interest).hex()
'050e07060801610801620a0400000008'
"""

from testbed.capture.layers.capture_file import ndn_layers, opened, read_capture, with_lengths
from testbed.capture.layers.link import LpPacket, NdnPacket
from testbed.capture.layers.messages import MESSAGE_LAYERS
from testbed.capture.layers.ndn import Data, Interest, Name, Nonce

__all__ = [
    "MESSAGE_LAYERS",
    "Data",
    "Interest",
    "LpPacket",
    "Name",
    "NdnPacket",
    "Nonce",
    "ndn_layers",
    "opened",
    "read_capture",
    "with_lengths",
]
