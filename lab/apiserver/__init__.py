"""The slice of the Kubernetes API the product uses; without it the lab would have no cluster to ask about.

`Store` (in process) and `ApiServer` (the same objects over HTTP).
"""

from lab.apiserver.access import Call, User
from lab.apiserver.errors import ApiError, Object
from lab.apiserver.registry import Resource
from lab.apiserver.server import ApiServer
from lab.apiserver.store import Event, Store, Watch

__all__ = ["ApiError", "ApiServer", "Call", "Event", "Object", "Resource", "Store", "User", "Watch"]
