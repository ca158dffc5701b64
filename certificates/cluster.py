"""The calls to the API server by which certificates are asked for, signed and kept; without it neither side of that
could tell a refusal from an API server that is away."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from kubernetes.aio import client
from kubernetes.aio.watch import Watch

from certificates.kubeconfig import NoCluster, opened
from certificates.trouble import unanswered

SIGNER = "calico-why.io/probe"
AUTHORITY = "calico-why-authority"  # the Secret with its key, and the ConfigMap with those that are to be trusted
BOT_CERTS = "calico-why-bot-certs"
NODE_ACCOUNT = "calico-why-node"
NODE_NAME = "authentication.kubernetes.io/node-name"  # in what the API server knows of a pod's token
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
USAGES = ["digital signature", "server auth"]
CALL_S = 15.0

Object = dict[str, Any]


class Trouble(Exception):
    """What could not be done, as a sentence. status: of HTTP, 0: no answer came."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status


class Cluster:
    """The API server, with objects as plain dictionaries. Everything raises Trouble."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    async def send(
        self, method: str, path: str, body: Object | None = None, query: Mapping[str, str] | None = None
    ) -> Object:
        try:
            verb, url, headers, sent, _ = await self._api.param_serialize(
                method,
                path + (f"?{urlencode(query)}" if query else ""),
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
            )
            limit = aiohttp.ClientTimeout(total=CALL_S)
            response = await self._api.call_api(verb, url, headers, body=sent, _request_timeout=limit)
            raw = await response.read()
            answer: Object = msgspec.json.decode(raw, type=dict[str, Any])
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Trouble(f"The API server cannot be reached ({unanswered(error)}).") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Trouble(f"The API server answered {method} {path} with something that is no object.") from error
        if response.status >= 400:
            said = answer.get("message") or answer.get("reason") or "nothing more"
            raise Trouble(f"The API server answered {response.status} to {method} {path}: {said}", response.status)
        return answer

    async def secret(self, name: str) -> Object:
        return await self.send("GET", self._path("secrets", name))

    async def config_map(self, name: str) -> Object:
        return await self.send("GET", self._path("configmaps", name))

    async def replace(self, changed: Object) -> Object:
        """A Secret or ConfigMap, if nobody wrote it since it was read (409)."""
        plural = {"Secret": "secrets", "ConfigMap": "configmaps"}[changed["kind"]]
        return await self.send("PUT", self._path(plural, changed["metadata"]["name"]), changed)

    async def requests(self) -> tuple[list[Object], str]:
        """All that are for this signer, and the version from which to go on watching."""
        answer = await self.send("GET", REQUESTS, query={"fieldSelector": f"spec.signerName={SIGNER}"})
        return answer["items"], answer["metadata"]["resourceVersion"]

    async def further(self, version: str, seconds: int) -> AsyncGenerator[Object]:
        """Those that come or change within that time."""
        watch = Watch()
        stream = watch.stream(
            client.CertificatesV1Api(self._api).list_certificate_signing_request,
            field_selector=f"spec.signerName={SIGNER}",
            resource_version=version,
            timeout_seconds=seconds,
            _request_timeout=seconds + CALL_S,
        )
        try:
            async for event in stream:
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield event["raw_object"]
        except Exception as error:  # the client has none of its own for a line that it cannot read
            raise Trouble(f"The watch of requests broke off: {str(error) or type(error).__name__}.") from error
        finally:
            await watch.close()

    def _path(self, plural: str, name: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/{plural}/{name}"


@contextlib.asynccontextmanager
async def connect(kubeconfig: str, namespace: str) -> AsyncGenerator[Cluster]:
    """kubeconfig: path, "": the pod's own account. Raises Trouble."""
    try:
        async with opened(kubeconfig) as api:
            yield Cluster(api, namespace)
    except NoCluster as error:
        raise Trouble(error.sentence) from error


def content(it: Object, name: str) -> bytes:
    """A file of a Secret, decoded; b"" where there is none."""
    return base64.b64decode((it.get("data") or {}).get(name) or "")


def with_content(secret: Object, files: Mapping[str, bytes]) -> Object:
    """The Secret with these files and no others."""
    return {**secret, "data": {name: base64.b64encode(told).decode() for name, told in files.items()}}
