"""The name in the certificate of a node's probe; without it a probe could answer in another node's place."""

from __future__ import annotations

import hashlib
import re

DOMAIN = "probe.calico-why"
# No node's name ends in it, so no node is called like the hash of another one.
DOMAIN_OF_HASHES = "hashed-probe.calico-why"
CERTIFICATE_UNTIL = "Certificate-Until"  # header by which a probe says when its own runs out, ISO 8601
BOT = "bot"  # common name of the only client certificate that a probe lets in

_LONGEST = 253
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def server_name(node: str) -> str:
    """DNS name by which the bot knows the probe of a node: NODE.probe.calico-why, or a hash where that is no DNS name
    (RFC 1035: 63 characters between dots, 253 in all; Kubernetes bounds only the whole name of a node)."""
    name = f"{node}.{DOMAIN}"
    if len(name) <= _LONGEST and _NAME.fullmatch(node):
        return name
    return f"{hashlib.sha256(node.encode()).hexdigest()[:40]}.{DOMAIN_OF_HASHES}"
