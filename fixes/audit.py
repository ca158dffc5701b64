"""Who asked, decided, was refused and did what, in a chain in the cluster; without it nobody could prove any of it."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
import msgspec
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from certificates.trouble import unanswered
from fixes.request import GROUP, IN_WORDS, VERSION, FixRequest, Person, Phase, stamp
from fixes.store import CALL_TIMEOUT_S, FixStore, StoreError, denial

PLURAL = "auditrecords"
KIND = "AuditRecord"
START = "sha256:" + "0" * 64  # what the first record names as its predecessor
REFUSED = "refused"
PUBLISHED = "published"
PAGE = 500
AHEAD = 64  # records that are read one by one, before all are
GAP = 10_000  # numbers that may be missing; a record beyond was put there to use them up, and nobody goes on after it
ATTEMPTS = 256  # each lost one is somebody else's record
TEXT_MAX = 1000
NUMBERED = re.compile(r"a-[0-9]{10}")


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a writer says; number, previous hash, time, writer and hash are added when it is written."""

    event: str  # a phase of the request, or what else there is: refused, published, switched on, switched off
    key: str = ""  # of what happens once: two records with one key are never written
    request: str = ""
    digest: str = ""
    by: Person | None = None
    place: str = ""  # where in Slack: channel and ts
    text: str = ""


class Line(NamedTuple):
    """A record as it is in the cluster."""

    name: str
    spec: Mapping[str, Any]


class AuditError(StoreError):
    """The audit trail could not be read or written."""


class Contradicted(AuditError):
    """A record of the same step says something else."""


class Audit:
    """The trail of one namespace. Every method raises AuditError when the API server does not do it."""

    def __init__(self, store: FixStore, writer: str) -> None:
        """writer: who writes here, as it stands in the records: "bot", "fixer of node-a"."""
        self._objects = client.CustomObjectsApi(store.api)
        self._at = {"group": GROUP, "version": VERSION, "namespace": store.namespace, "plural": PLURAL}
        self._store = store
        self._writer = writer
        self._number, self._hash = 0, ""  # the newest record known here; "" before anything was read
        self._keys: dict[str, int] = {}  # of all records up to that one, with what each says
        self._writing = asyncio.Lock()

    async def append(self, record: Record) -> Line | None:
        """The record as it was written at the end of the trail; None when one with its key is there already. Raises
        Contradicted where that one says something else."""
        async with self._writing:
            return await self._append(record)

    async def follow(self, request: FixRequest) -> None:
        """Everything that the request's status says happened is in the trail afterwards, each once.

        Whoever moves a request calls this, and whoever sees one moved: what one could not write any more, another does.
        Raises Contradicted, once all else is written, where a record says something else: no fixer goes on then.
        """
        contradicted: Contradicted | None = None
        async with self._writing:
            for record in events(request):
                try:
                    await self._append(record)
                except Contradicted as error:  # what came of it is written all the same
                    contradicted = contradicted or error
        if contradicted:
            raise contradicted

    async def read(self, request: str = "") -> list[Line]:
        """All records, oldest first, or those of one request."""
        lines = [line for line in await self._list() if not request or line.spec.get("request") == request]
        return sorted(lines, key=lambda line: line.name)

    # -- the end of the chain ---------------------------------------------------------------------------------------

    async def _append(self, record: Record) -> Line | None:
        """Creating the next number is the compare-and-swap: who comes second reads on and tries the one after.

        Every record before it was read here, so a key that is not known then is nowhere.
        """
        if not self._hash:
            await self._read_all()
        for _ in range(ATTEMPTS):
            if record.key and record.key in self._keys:
                if self._keys[record.key] != _meaning(_said(record)):
                    raise Contradicted(
                        f"The audit trail tells of {record.key} already, and something else than is so: "
                        "`calico-why audit verify` names the record."
                    )
                return None
            spec = self._spec(record)
            body = {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": KIND,
                "metadata": {"name": name_of(spec["number"]), "namespace": self._store.namespace},
                "spec": spec,
            }
            if await self._create(body):
                self._know(spec)
                return Line(name_of(spec["number"]), spec)
            await self._read_on()
        raise AuditError("The audit trail is being written by others all the time; nothing was added to it. Try again.")

    def _spec(self, record: Record) -> dict[str, Any]:
        spec = {
            "number": self._number + 1,
            "previous": self._hash,
            "at": stamp(self._store.now()),
            "writer": self._writer,
            **_said(record),
        }
        return spec | {"hash": hash_of(spec)}

    async def _read_on(self) -> None:
        """The records that others have written; whoever lags far behind reads all anew."""
        for _ in range(AHEAD):
            found = await self._get(self._number + 1)
            if found is None:
                return
            self._know(found.get("spec") or {})
        await self._read_all()

    async def _read_all(self) -> None:
        self._number, self._hash = 0, START
        for line in sorted(await self._list(), key=lambda line: line.name):
            if not NUMBERED.fullmatch(line.name):
                continue
            # After one that somebody took out the trail goes on: that it is missing, `verify` says.
            number = int(line.name[2:])
            if number > self._number + GAP:
                return
            self._number = number - 1
            self._know(line.spec)

    def _know(self, spec: Mapping[str, Any]) -> None:
        self._number, self._hash = self._number + 1, str(spec.get("hash", START))
        if key := spec.get("key"):
            self._keys.setdefault(str(key), _meaning(spec))

    # -- calls ------------------------------------------------------------------------------------------------------

    async def _list(self) -> list[Line]:
        found: list[Line] = []
        further = ""
        while True:
            more = {"_continue": further} if further else {}
            answer = await self._call(
                self._objects.list_namespaced_custom_object(**self._at, limit=PAGE, **more, **_patience())
            )
            found += [Line(str(item["metadata"]["name"]), item.get("spec") or {}) for item in answer.get("items", [])]
            further = answer["metadata"].get("continue") or ""
            if not further:
                return found

    async def _get(self, number: int) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._call(
                self._objects.get_namespaced_custom_object(**self._at, name=name_of(number), **_patience())
            )
        except AuditError as error:
            if error.missing:
                return None
            raise
        return found

    async def _create(self, body: Mapping[str, Any]) -> bool:
        """False when the number is taken."""
        try:
            await self._objects.create_namespaced_custom_object(**self._at, body=body, **_patience())
        except ApiException as error:
            if error.status == 409:
                return False
            raise _failed(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from None
        return True

    async def _call(self, call: Any) -> Any:
        try:
            return await call
        except ApiException as error:
            raise _failed(error) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from None


def events(request: FixRequest) -> list[Record]:
    """What happened to a request by its own status, as records."""
    first = Record(
        event=str(Phase.PENDING),
        key=f"{request.name}/asked",
        request=request.name,
        digest=request.spec.digest,
        by=request.spec.requested_by,
        text=request.spec.title,
    )
    return [
        first,
        *(
            Record(
                event=str(event.phase),
                key=f"{request.name}/{number}",
                request=request.name,
                digest=request.spec.digest,
                by=event.by,
                text=event.message,
            )
            for number, event in enumerate(request.status.history)
        ),
    ]


def name_of(number: int) -> str:
    return f"a-{number:010d}"


def hash_of(spec: Mapping[str, Any]) -> str:
    """Of everything a record says, what a newer version says in it included."""
    content = {key: value for key, value in spec.items() if key != "hash"}
    return "sha256:" + hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def verify(lines: Sequence[Line], requests: Sequence[FixRequest] = (), head: str = "") -> list[str]:
    """What is wrong with a whole trail, a sentence each, the first break of the chain first; [] when nothing is.

    requests: all there are; each event in their status has to be in the trail. head: a hash that was published.
    """
    wrong = _breaks(sorted(lines, key=lambda line: line.name))[:1]
    if missing := _missing(lines):
        wrong.append(f"Missing: {', '.join(missing)}.")
    if head and head not in {line.spec.get("hash") for line in lines}:
        wrong.append(f"The published head {head} is not in the trail: its end was cut off, or all of it was rewritten.")
    kept = {str(line.spec["key"]): line for line in lines if line.spec.get("key")}
    for request in requests:
        for record in events(request):
            line = kept.get(record.key)
            what = f"{request.name}, {IN_WORDS[Phase(record.event)]}"
            if line is None:
                wrong.append(f"{what}: there is no record of it.")
            elif not _agrees(line.spec, record):
                wrong.append(f"{what}: {line.name} says something else than the request now does.")
    return wrong


def _breaks(lines: Sequence[Line]) -> list[str]:
    before, after = START, "the beginning"
    found = []
    for number, line in enumerate(lines, 1):
        if line.spec.get("hash") != hash_of(line.spec):
            found.append(f"{line.name} is not what its hash says: it was changed.")
        elif line.spec.get("previous") != before:
            found.append(f"The chain breaks at {line.name}: it does not follow {after}.")
        elif line.spec.get("number") != number or line.name != name_of(number):
            found.append(f"The chain breaks at {line.name}: it is not record {number}, which its place says.")
        before, after = str(line.spec.get("hash")), line.name
    return found


def _missing(lines: Sequence[Line]) -> list[str]:
    """The gaps in the numbers, each as a name or as the first and the last of them."""
    found = []
    before = 0
    for number in sorted(int(line.name[2:]) for line in lines if NUMBERED.fullmatch(line.name)):
        if number == before + 2:
            found.append(name_of(before + 1))
        elif number > before + 2:
            found.append(f"{name_of(before + 1)} to {name_of(number - 1)}")
        before = number
    return found


def _agrees(spec: Mapping[str, Any], record: Record) -> bool:
    return _meaning(spec) == _meaning(_said(record))


def _meaning(spec: Mapping[str, Any]) -> int:
    """Of two records of one step, whether they say the same: all writers have it from the same request."""
    said = [spec.get(field) for field in ("event", "by", "digest", "request", "text")]
    return hash(msgspec.json.encode(said, order="deterministic"))


def _said(record: Record) -> dict[str, Any]:
    """A record's own fields as they are written, lists and all as JSON has them."""
    text = record.text.encode("utf-8", "replace").decode()
    short = msgspec.structs.replace(record, text=text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…")
    said: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(short))
    return said


def told(line: Line) -> str:
    """A record as a line for people."""
    spec = line.spec
    by: Mapping[str, Any] = spec.get("by") or {}
    who = f" by {by.get('name') or by.get('id')}" if by else ""
    through = f" ({by['entry']})" if by.get("entry") and by.get("entry") != by.get("id") else ""
    text = f": {spec['text']}" if spec.get("text") else ""
    words = [line.name, str(spec.get("at", "")), str(spec.get("request") or "-")]
    return f"{'  '.join(words)}  {spec.get('event', '?')}{who}{through}{text} [{spec.get('writer', '?')}]"


def exported(line: Line) -> str:
    """A record as one line of JSON, everything in it that its hash covers."""
    return msgspec.json.encode(dict(line.spec), order="deterministic").decode()


def _failed(error: ApiException) -> AuditError:
    try:
        said = str(msgspec.json.decode(error.body or b"").get("message", "")) or str(error.reason)
    except (msgspec.DecodeError, AttributeError, TypeError):
        said = str(error.reason)
    if error.status == 404 and f'"{name_of(0)[:2]}' in said:
        return AuditError(f"There is no such record: {said}.", missing=True)
    if error.status == 404:
        return AuditError(
            f"This cluster has no audit trail ({said}). Install it once: kubectl apply -f auditrecord.yaml"
        )
    if why := denial(said):
        return AuditError(why)
    if error.status in (401, 403):
        return AuditError(f"The API server does not allow it: {said}. Grant create, get and list on {PLURAL}.{GROUP}.")
    return AuditError(f"The audit trail: the API server answered {error.status}: {said}.")


def _unreachable(error: Exception) -> AuditError:
    return AuditError(
        f"The API server cannot be reached ({unanswered(error)}), so the audit trail can neither be read "
        "nor written. Check the kubeconfig and the network, then try again."
    )


def _patience() -> dict[str, float]:
    return {"_request_timeout": CALL_TIMEOUT_S}
