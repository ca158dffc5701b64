"""Serves the store over HTTP as a Kubernetes API server does; without it neither kubectl nor the bot could ask.

server = ApiServer(Store(), tokens={"secret": User("admin", grants=None)})
web.AppRunner(server.application())          # or: url = await server.start(); ...; await server.stop()
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from lab.apiserver import access, calls, certificates, discovery, openapi, requests, reviews, table, tiers
from lab.apiserver.access import Call, User
from lab.apiserver.calls import Outcome
from lab.apiserver.errors import ApiError, Object, bad_request, expired, method_not_allowed, too_new
from lab.apiserver.registry import REVIEWS, Resource
from lab.apiserver.requests import Target
from lab.apiserver.selectors import Selector, parse_fields, parse_labels
from lab.apiserver.store import Store
from lab.apiserver.watches import Watcher, WatchOptions
from lab.apiserver.writes import Writer

_log = logging.getLogger(__name__)
_JSON = "application/json"
_LARGEST_BODY = 3 * 1024 * 1024
_LONGEST_WATCH_SECONDS = 3600.0
_REMEMBERED_CALLS = 100_000


class ApiServer:
    """A store over HTTP. `tokens` maps bearer tokens to users; whoever has none is anonymous. `calls` are the
    requests for resources, oldest first (of the last 100,000), refused ones included, and what a signer and
    who writes a policy have to be allowed beside them."""

    def __init__(
        self, store: Store, tokens: Mapping[str, User], log: Callable[[str], str | None] = lambda pod: None
    ) -> None:
        """log: what the container of a pod of this name has written; None where nothing runs in it."""
        self.store = store
        self._logged = log
        self.tokens = tokens
        self.calls: deque[Call] = deque(maxlen=_REMEMBERED_CALLS)
        self._noted = calls.in_directory(os.environ.get(calls.CALLS, ""))
        self._writer = Writer(store, lambda call, user, dry: self._remember(call, user, dry=dry))
        self._watchers: set[Watcher] = set()
        self._closing = False
        self._runner: web.AppRunner | None = None

    # ---- life --------------------------------------------------------------------------------------------------

    def application(self) -> web.Application:
        """An application to serve with any runner. It ends its watches when it is shut down."""
        application = web.Application(client_max_size=_LARGEST_BODY)
        application.router.add_route("*", "/{path:.*}", self._handle)
        application.on_shutdown.append(self._shut_down)
        return application

    async def start(self, *listeners: socket.socket, tls: ssl.SSLContext | None = None) -> str:
        """Serves on listening sockets, or on a free port of 127.0.0.1. Returns the URL of the first. With `tls` it is
        https (kubectl sends a token over nothing else), see `certificate.make`."""
        sockets = listeners or (socket.create_server(("127.0.0.1", 0)),)
        self._closing = False
        self._runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        for listener in sockets:
            await web.SockSite(self._runner, listener, ssl_context=tls).start()
        host, port = sockets[0].getsockname()[:2]
        return f"{'https' if tls else 'http'}://{host}:{port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _shut_down(self, _application: web.Application) -> None:
        self._closing = True
        for watcher in list(self._watchers):
            watcher.close()

    # ---- one request -------------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            user = access.authenticate(request.headers.get("Authorization", ""), self.tokens)
            target = requests.parse_path(request.path)
            if target is None:
                return self._other(request, user)
            return await self._resource(request, user, target)
        except ApiError as error:
            headers = {}
            if error.details and "retryAfterSeconds" in error.details:
                headers["Retry-After"] = str(error.details["retryAfterSeconds"])
            return _json(error.body(), error.status, headers)
        except (web.HTTPException, ConnectionResetError):
            raise
        except Exception:
            # One broken request must not take the cluster with it; the log has what happened.
            _log.exception("%s %s failed", request.method, request.path)
            return _json(
                ApiError(500, "InternalError", "Internal error occurred: see the log of this server").body(), 500
            )

    async def _resource(self, request: web.Request, user: User, target: Target) -> web.StreamResponse:
        verb = target.verb(request.method, request.query)
        call = Call(verb, target.group, target.plural, target.subresource, user.name, target.namespace, target.name)
        self._remember(call, user, dry="dryRun" in request.query)
        if not access.allowed(
            user, verb, target.group, target.plural, target.subresource, target.namespace, target.name
        ):
            raise access.forbidden(call)
        review = next(
            (
                entry
                for entry in REVIEWS
                if (entry.group, entry.version, entry.plural) == (target.group, target.version, target.plural)
            ),
            None,
        )
        if review is not None:
            return await self._review(request, user, review)
        resource = self.store.registry.by_path(target.group, target.version, target.plural)
        if resource is not None and (target.plural, target.subresource, verb) == ("pods", "log", "get"):
            self.store.peek(resource, target.name, target.namespace)
            return self._written(request, target)
        if resource is None or (target.subresource and target.subresource not in resource.subresources):
            return _page_not_found()
        if resource.namespaced is False and target.namespace and target.plural != "namespaces":
            return _page_not_found()
        if verb in ("watch", "list"):
            tiers.let_read(user, call, None, lambda one: self._remember(one, user))
        if verb == "watch":
            return await self._watch(request, resource, target)
        if verb == "list":
            return self._list(request, resource, target)
        if verb == "get":
            obj = self.store.peek(resource, target.name, target.namespace)
            tiers.let_read(user, call, obj, lambda one: self._remember(one, user))
            self._not_from_the_future(request)
            return self._one(request, resource, obj)
        if verb in ("delete", "deletecollection"):
            return await self._delete(request, user, resource, target, verb)
        if verb in ("create", "update", "patch"):
            return await self._write(request, user, resource, target, verb)
        raise method_not_allowed()

    def _remember(self, call: Call, user: User, *, dry: bool = False) -> None:
        self.calls.append(call)
        if self._noted is not None:
            asked = call.verb, call.group, call.resource, call.subresource, call.namespace, call.name
            otherwise = Outcome.TRIED if dry else Outcome.REFUSED
            self._noted.note(call, Outcome.GRANTED if access.granted(user, *asked) else otherwise)

    def _written(self, request: web.Request, target: Target) -> web.Response:
        text = self._logged(target.name)
        if text is None or requests.truth(request.query, "previous"):
            container = request.query.get("container", "")
            raise bad_request(f'container "{container}" in pod "{target.name}" is not available')
        lines = text.splitlines(keepends=True)[-(requests.number(request.query, "tailLines") or len(text)) :]
        most = requests.number(request.query, "limitBytes") or len(text)
        return web.Response(text="".join(lines)[:most], content_type="text/plain")

    # ---- what is no resource -----------------------------------------------------------------------------------

    def _other(self, request: web.Request, user: User) -> web.Response:
        path = request.path
        if user is access.ANONYMOUS and path not in access.PUBLIC_PATHS:
            raise access.forbidden_path(user, request.method.lower(), path)
        if path in ("/healthz", "/livez", "/readyz"):
            return self._health(request)
        if request.method not in ("GET", "HEAD"):
            return _page_not_found()
        registry = self.store.registry
        parts = path.strip("/").split("/")
        if path.rstrip("/") == "/version":
            return _json(discovery.VERSION)
        if path.rstrip("/") in ("/api", "/apis"):
            return self._groups(request, core=parts == ["api"])
        if path.rstrip("/") == "/openapi/v3":
            return _json(openapi.index(registry))
        found: Object | None = None
        if parts[0] in ("api", "apis"):
            if parts[0] == "api" and len(parts) == 2:
                found = discovery.resources(registry, "", parts[1])
            elif parts[0] == "apis" and len(parts) == 2:
                found = discovery.group(registry, parts[1])
            elif parts[0] == "apis" and len(parts) == 3:
                found = discovery.resources(registry, parts[1], parts[2])
        elif parts[:3] == ["openapi", "v3", "api"] and len(parts) == 4:
            found = openapi.document(registry, "", parts[3])
        elif parts[:3] == ["openapi", "v3", "apis"] and len(parts) == 5:
            found = openapi.document(registry, parts[3], parts[4])
        return _page_not_found() if found is None else _json(found)

    @staticmethod
    def _health(request: web.Request) -> web.Response:
        name = request.path.strip("/")
        if "verbose" in request.query:
            return web.Response(text=f"[+]ping ok\n[+]log ok\n[+]etcd ok\n{name} check passed\n")
        return web.Response(text="ok")

    def _groups(self, request: web.Request, *, core: bool) -> web.Response:
        registry = self.store.registry
        accept = request.headers.get("Accept", "")
        if "as=APIGroupDiscoveryList" in accept and "v=v2" in accept.replace("v=v2beta1", ""):
            kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            return _json(discovery.aggregated(registry, core=core), content_type=kind)
        if core:
            return _json(discovery.core_versions(request.host))
        return _json(discovery.groups(registry))

    async def _review(self, request: web.Request, user: User, resource: Resource) -> web.Response:
        if request.method != "POST":
            raise method_not_allowed()
        asked = requests.decode(await request.read(), request.content_type, resource)
        asked = requests.checked_kind(asked, resource)
        manager = requests.write_options(request.query, request.headers.get("User-Agent", "")).manager
        return _json(reviews.answer(resource, asked, user, self.tokens, manager), 201)

    # ---- reading -----------------------------------------------------------------------------------------------

    def _not_from_the_future(self, request: web.Request) -> None:
        wanted = requests.version(request.query)
        if wanted is not None and wanted > self.store.version:
            raise too_new(wanted, self.store.version)

    def _selector(self, request: web.Request, resource: Resource, target: Target) -> Selector | None:
        """What the client selects; None for everything."""
        labels, wanted = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
        if target.name:
            wanted = ",".join(filter(None, (wanted, f"metadata.name={target.name}")))
        if not labels and not wanted:
            return None
        by_labels, by_fields = parse_labels(labels), parse_fields(wanted, resource)
        return lambda obj: by_labels(obj) and by_fields(obj)

    def _list(self, request: web.Request, resource: Resource, target: Target) -> web.Response:
        query = request.query
        self._not_from_the_future(request)
        selector = self._selector(request, resource, target)
        limit = requests.number(query, "limit")
        version, objects = self.store.version, None
        if query.get("continue"):
            version, start = requests.read_continue(query["continue"])
            objects = [
                obj
                for obj in self._snapshot(resource, version, target.namespace)
                if (obj["metadata"].get("namespace", ""), obj["metadata"]["name"]) > start
            ]
        elif query.get("resourceVersionMatch") == "Exact":
            version = requests.version(query) or version
            objects = self._snapshot(resource, version, target.namespace)
        else:
            objects = self.store.view(resource, target.namespace or None)
        if selector is not None:
            objects = [obj for obj in objects if selector(obj)]
        metadata: Object = {"resourceVersion": str(version)}
        if limit and len(objects) > limit:
            last = objects[limit - 1]["metadata"]
            metadata["continue"] = requests.continue_token(version, (last.get("namespace", ""), last["name"]))
            if selector is None:
                metadata["remainingItemCount"] = len(objects) - limit
            objects = objects[:limit]
        return self._many(request, resource, objects, metadata)

    def _snapshot(self, resource: Resource, version: int, namespace: str) -> list[Object]:
        if version > self.store.version:
            raise too_new(version, self.store.version)
        try:
            return self.store.snapshot(resource, version, namespace or None)
        except ApiError:
            raise expired(version, self.store.version) from None

    def _many(self, request: web.Request, resource: Resource, objects: list[Object], metadata: Object) -> web.Response:
        wanted = _form(request)
        if wanted == "Table":
            return _json(table.table(resource, objects, metadata, request.query.get("includeObject", "")))
        if wanted == "PartialObjectMetadataList":
            shown = [table.partial(obj) for obj in objects]
            return _json(
                {"kind": wanted, "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": shown},
            )
        if resource.custom:
            metadata.setdefault("continue", "")
            items = objects
        else:
            items = [{key: obj[key] for key in obj if key not in ("apiVersion", "kind")} for obj in objects]
        told = {
            "kind": resource.list_kind_name,
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": items,
        }
        return _json(told)

    def _one(
        self, request: web.Request, resource: Resource, obj: Object, status: int = 200, warnings: tuple[str, ...] = ()
    ) -> web.Response:
        headers = _warned(warnings)
        wanted = _form(request)
        if wanted == "Table":
            metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            include = request.query.get("includeObject", "")
            return _json(table.table(resource, [obj], metadata, include), status, headers)
        if wanted == "PartialObjectMetadata":
            return _json(table.partial(obj), status, headers)
        return _json(obj, status, headers)

    # ---- watching ----------------------------------------------------------------------------------------------

    async def _watch(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        query = request.query
        self._not_from_the_future(request)
        initial = requests.truth(query, "sendInitialEvents")
        options = WatchOptions(
            resource=resource,
            namespace=target.namespace if resource.namespaced else "",
            selector=self._selector(request, resource, target) or (lambda obj: True),
            since=None if initial else requests.version(query),
            timeout_s=requests.number(query, "timeoutSeconds") or _LONGEST_WATCH_SECONDS,
            bookmarks=requests.truth(query, "allowWatchBookmarks"),
            mark_initial=initial and requests.truth(query, "allowWatchBookmarks"),
        )
        wanted = _form(request)
        include = query.get("includeObject", "")
        response = web.StreamResponse(headers={"Content-Type": _JSON, "Cache-Control": "no-cache, private"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        watcher = Watcher(self.store, options)
        self._watchers.add(watcher)
        if self._closing:
            watcher.close()
        header = True
        try:
            async for kind, obj in watcher.events():
                shown = obj
                if wanted == "Table" and kind not in ("ERROR", "BOOKMARK"):
                    metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
                    shown = table.table(resource, [obj], metadata, include, header=header)
                    header = False
                elif wanted.startswith("PartialObjectMetadata") and kind != "ERROR":
                    shown = table.partial(obj)
                await response.write(msgspec.json.encode({"type": kind, "object": shown}) + b"\n")
            await response.write_eof()
        except ConnectionResetError:
            # The client went away, as clients of a watch do.
            pass
        finally:
            self._watchers.discard(watcher)
        return response

    # ---- writing -----------------------------------------------------------------------------------------------

    async def _write(
        self, request: web.Request, user: User, resource: Resource, target: Target, verb: str
    ) -> web.Response:
        options = requests.write_options(request.query, request.headers.get("User-Agent", ""))
        options = dataclasses.replace(options, user=user)
        body = await request.read()
        if verb != "create" and not target.name:
            raise method_not_allowed()
        if resource.key == certificates.KEY and target.name:
            asked = certificates.needed(target.subresource, self.store.peek(resource, target.name), user)
            if asked is not None:
                self._remember(asked, user)
                certificates.permit(asked, user)
        write = {"create": self._writer.create, "update": self._writer.update, "patch": self._writer.patch}[verb]
        kind = request.content_type if "Content-Type" in request.headers else ""
        written = write(resource, target, body, kind, options)
        return self._one(request, resource, written.obj, written.status, tuple(written.warnings))

    async def _delete(
        self, request: web.Request, user: User, resource: Resource, target: Target, verb: str
    ) -> web.Response:
        body = await request.read()
        wanted = requests.delete_options(body, request.content_type)
        told = wanted.get("dryRun") or []
        dry_run = requests.write_options(request.query, "").dry_run or "All" in told
        if verb == "delete":
            return _json(self._writer.delete(resource, target, wanted, dry_run, user))
        selector = self._selector(request, resource, target)
        objects = [
            obj for obj in self.store.view(resource, target.namespace or None) if selector is None or selector(obj)
        ]
        version = str(self.store.version)
        for obj in objects:
            metadata = obj["metadata"]
            one = Target(target.group, target.version, target.plural, metadata.get("namespace", ""), metadata["name"])
            self._writer.delete(resource, one, wanted, dry_run, user)
        return self._many(request, resource, objects, {"resourceVersion": version})


def _form(request: web.Request) -> str:
    """How the client wants objects: "" as they are, Table, PartialObjectMetadata or PartialObjectMetadataList; the
    first it names counts. Raises ApiError 406 where it takes no JSON."""
    accept = request.headers.get("Accept", "")
    if not accept:
        return ""
    for entry in accept.split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        if kind not in (_JSON, "application/*", "*/*"):
            continue
        wanted = dict(part.partition("=")[::2] for part in parameters)
        form = wanted.get("as", "")
        if form == "" or (form in ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")):
            if form and wanted.get("v", "v1") != "v1":
                continue
            return form
    raise ApiError(
        406,
        "NotAcceptable",
        "only the following media types are accepted: application/json",
    )


def _warned(warnings: tuple[str, ...]) -> dict[str, str]:
    if not warnings:
        return {}
    quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in warnings]
    return {"Warning": ", ".join(f'299 - "{text}"' for text in quoted)}


def _json(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None, content_type: str = _JSON
) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, headers={"Content-Type": content_type, **(headers or {})}
    )


def _page_not_found() -> web.Response:
    return web.Response(text="404 page not found\n", status=404)
