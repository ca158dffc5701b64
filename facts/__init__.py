"""What was seen, declared once: every other package speaks in these nouns. Imports nobody."""

from facts.ask import LocalPod, NodeAsk, OwnPort, SendProbe, Way
from facts.calico import CalicoNode, CalicoPod, CalicoSettings, FelixHealth
from facts.endpoint import AddressHolders, Endpoint
from facts.fact import Blind, Fact, decode, encode, from_builtins
from facts.flow import Flow, Leg, Question, Side
from facts.ipam import Allocation, Pool, PoolUsage
from facts.link import Link, LinkAddresses
from facts.message import Message, Text, say
from facts.neighbor import FdbEntry, Neighbor
from facts.pod import Listener, PodInterface, PodRoute
from facts.reachability import ProbeResult
from facts.route import RouteLookup
from facts.sysctl import Sysctl
from facts.verdict import Cause, Checked, Diagnosis, Hop, LegPath

__all__ = [
    "AddressHolders",
    "Allocation",
    "Blind",
    "CalicoNode",
    "CalicoPod",
    "CalicoSettings",
    "Cause",
    "Checked",
    "Diagnosis",
    "Endpoint",
    "Fact",
    "FdbEntry",
    "FelixHealth",
    "Flow",
    "Hop",
    "Leg",
    "LegPath",
    "Link",
    "LinkAddresses",
    "Listener",
    "LocalPod",
    "Message",
    "Neighbor",
    "NodeAsk",
    "OwnPort",
    "PodInterface",
    "PodRoute",
    "Pool",
    "PoolUsage",
    "ProbeResult",
    "Question",
    "RouteLookup",
    "SendProbe",
    "Side",
    "Sysctl",
    "Text",
    "Way",
    "decode",
    "encode",
    "from_builtins",
    "say",
]
