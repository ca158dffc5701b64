"""What was seen, declared once: every other package speaks in these nouns. Imports nobody."""

from facts.ask import Answering, AskedRoute, LocalPod, NodeAsk, OwnPort, SendProbe, Trace, Watch, Way
from facts.backend import Backend, ServicePort
from facts.bgp import BgpPeer, Bird
from facts.calico import CalicoNode, CalicoPod, CalicoSettings, FelixHealth
from facts.endpoint import AddressHolders, Endpoint
from facts.fact import Blind, Fact, decode, encode, from_builtins
from facts.firewall import (
    BACKENDS,
    BLAMED,
    Blame,
    CalicoFirewall,
    ConnectionTable,
    FirewallTrace,
    RuleDrop,
    RuleRewrite,
    Stop,
)
from facts.flow import DERIVED, Arrival, Flow, Leg, Lost, Question, Room, Side
from facts.ipam import Allocation, BlockClaim, Leak, LeakedAddresses, Pool, PoolUsage
from facts.link import Link, LinkAddresses
from facts.machine import ForeignVxlan, ForeignVxlans, MacSharers, NeighborTable, NodeAddress, RoutingRules
from facts.message import Message, Text, in_turn, joined, listed, say
from facts.neighbor import FdbEntry, Neighbor, PeerGateway
from facts.node_status import NodeMachine, RouteGroup, RouteTable
from facts.pod import Listener, PodInterface, PodRoute
from facts.policy import (
    POLICY_KINDS,
    LabelledEndpoint,
    NetworkSet,
    PoliciesRead,
    Policy,
    PolicyAllows,
    PolicyBypass,
    PolicyOpinion,
    PolicyPeer,
    PolicyRule,
    Tier,
)
from facts.reachability import DropReason, DropReasons, LargeLoss, ProbeResult, Train, TrainLoss
from facts.route import RouteLookup
from facts.service import CalicoService, GarbageCollector, Typha
from facts.sighting import Bystander, Sighting, StageSighting
from facts.sysctl import Sysctl
from facts.traffic_control import Taker, TrafficControl
from facts.verdict import Cause, Checked, Diagnosis, Hop, LegPath
from facts.wireguard import WireguardDevice, WireguardPeer

__all__ = [
    "BACKENDS",
    "BLAMED",
    "DERIVED",
    "POLICY_KINDS",
    "AddressHolders",
    "Allocation",
    "Answering",
    "Arrival",
    "AskedRoute",
    "Backend",
    "BgpPeer",
    "Bird",
    "Blame",
    "Blind",
    "BlockClaim",
    "Bystander",
    "CalicoFirewall",
    "CalicoNode",
    "CalicoPod",
    "CalicoService",
    "CalicoSettings",
    "Cause",
    "Checked",
    "ConnectionTable",
    "Diagnosis",
    "DropReason",
    "DropReasons",
    "Endpoint",
    "Fact",
    "FdbEntry",
    "FelixHealth",
    "FirewallTrace",
    "Flow",
    "ForeignVxlan",
    "ForeignVxlans",
    "GarbageCollector",
    "Hop",
    "LabelledEndpoint",
    "LargeLoss",
    "Leak",
    "LeakedAddresses",
    "Leg",
    "LegPath",
    "Link",
    "LinkAddresses",
    "Listener",
    "LocalPod",
    "Lost",
    "MacSharers",
    "Message",
    "Neighbor",
    "NeighborTable",
    "NetworkSet",
    "NodeAddress",
    "NodeAsk",
    "NodeMachine",
    "OwnPort",
    "PeerGateway",
    "PodInterface",
    "PodRoute",
    "PoliciesRead",
    "Policy",
    "PolicyAllows",
    "PolicyBypass",
    "PolicyOpinion",
    "PolicyPeer",
    "PolicyRule",
    "Pool",
    "PoolUsage",
    "ProbeResult",
    "Question",
    "Room",
    "RouteGroup",
    "RouteLookup",
    "RouteTable",
    "RoutingRules",
    "RuleDrop",
    "RuleRewrite",
    "SendProbe",
    "ServicePort",
    "Side",
    "Sighting",
    "StageSighting",
    "Stop",
    "Sysctl",
    "Taker",
    "Text",
    "Tier",
    "Trace",
    "TrafficControl",
    "Train",
    "TrainLoss",
    "Typha",
    "Watch",
    "Way",
    "WireguardDevice",
    "WireguardPeer",
    "decode",
    "encode",
    "from_builtins",
    "in_turn",
    "joined",
    "listed",
    "say",
]
