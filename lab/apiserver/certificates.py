"""CertificateSigningRequests as the API server keeps them; without it a signer could be tried on a real cluster only.

Who asked is written by the server, what was asked stays as it is, approval and certificate are written at endpoints of
their own by those who may `approve` and `sign` for that signer. Facts: pkg/registry/certificates, pkg/apis/certificates
and plugin/pkg/admission/certificates of Kubernetes.
"""

from __future__ import annotations

import base64
import binascii

from cryptography import x509

from lab.apiserver import access
from lab.apiserver.access import Call, User
from lab.apiserver.errors import ApiError, Object
from lab.apiserver.plain import copy, now

GROUP = "certificates.k8s.io"
KEY = (GROUP, "certificatesigningrequests")
APPROVAL = "approval"
VERBS = {APPROVAL: "approve", "status": "sign"}
SHORTEST_S = 600
DECIDED = ("Approved", "Denied")
USAGES = frozenset(
    {
        *("signing", "digital signature", "content commitment", "key encipherment", "key agreement"),
        *("data encipherment", "cert sign", "crl sign", "encipher only", "decipher only", "any", "server auth"),
        *("client auth", "code signing", "email protection", "s/mime", "ipsec end system", "ipsec tunnel"),
        *("ipsec user", "timestamping", "ocsp signing", "microsoft sgc", "netscape sgc"),
    }
)


def born(request: Object, user: User) -> None:
    """Who asked is who sent it, whatever the request says of itself."""
    spec = request.setdefault("spec", {})
    for name in ("username", "uid", "groups", "extra"):
        spec.pop(name, None)
    info = user.info()
    spec["username"] = info.pop("username")
    spec.update(info)


def needed(subresource: str, request: Object, user: User) -> Call | None:
    """What a writer of this endpoint has to be allowed beside the write itself; None for nothing."""
    verb = VERBS.get(subresource)
    return Call(verb, GROUP, "signers", "", user.name, "", request["spec"]["signerName"]) if verb else None


def permit(asked: Call, user: User) -> None:
    """Raises ApiError 403."""
    domain = asked.name.partition("/")[0]
    if any(access.allowed(user, asked.verb, GROUP, "signers", name=name) for name in (asked.name, f"{domain}/*")):
        return
    told = f'user not permitted to {asked.verb} requests with signerName "{asked.name}"'
    raise ApiError(403, "Forbidden", f"certificatesigningrequests.{GROUP} is forbidden: {told}")


def settle(subresource: str, request: Object, current: Object) -> None:
    """Puts back what this endpoint does not write."""
    request["spec"] = copy(current["spec"])
    before = current.get("status") or {}
    status = request.setdefault("status", {})
    if subresource == "":
        request["status"] = copy(before)
    elif subresource == APPROVAL:
        request["status"] = {**copy(before), "conditions": status.get("conditions") or []}
    for condition in request["status"].get("conditions") or []:
        same = [
            one
            for one in before.get("conditions") or []
            if (one["type"], one["status"]) == (condition.get("type"), condition.get("status"))
        ]
        condition.setdefault("lastUpdateTime", now())
        condition.setdefault("lastTransitionTime", same[0]["lastTransitionTime"] if same else now())


def check(request: Object, current: Object | None, subresource: str) -> list[Object]:
    """What is wrong with it. current: as it was; None: it is new."""
    return _of_spec(request.get("spec") or {}) if current is None else _of_status(request, current, subresource)


def _of_spec(spec: Object) -> list[Object]:
    causes = []
    try:
        pem = base64.b64decode(spec.get("request") or "", validate=True)
        if not x509.load_pem_x509_csr(pem).is_signature_valid:
            causes.append(_invalid("spec.request", "x509: ECDSA verification failure"))
    except (binascii.Error, ValueError):
        causes.append(_invalid("spec.request", "PEM block type must be CERTIFICATE REQUEST"))
    usages = spec.get("usages") or []
    if not usages:
        causes.append({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.usages"})
    for number, usage in enumerate(usages):
        if usage not in USAGES:
            told = f'Unsupported value: "{usage}": supported values: {", ".join(map(repr, sorted(USAGES)))}'
            field = f"spec.usages[{number}]"
            causes.append({"reason": "FieldValueNotSupported", "message": told, "field": field})
    domain, _, path = str(spec.get("signerName") or "").partition("/")
    if "." not in domain or not path:
        told = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        causes.append(_invalid("spec.signerName", told))
    if (spec.get("expirationSeconds") or SHORTEST_S) < SHORTEST_S:
        told = "may not specify a duration less than 600 seconds (10 minutes)"
        causes.append(_invalid("spec.expirationSeconds", told))
    return causes


def _of_status(request: Object, current: Object, subresource: str) -> list[Object]:
    causes = []
    status, before = request.get("status") or {}, current.get("status") or {}
    conditions = status.get("conditions") or []
    for kind in (*DECIDED, "Failed"):
        new, old = ([one for one in it.get("conditions") or [] if one.get("type") == kind] for it in (status, before))
        if len(new) < len(old):
            causes.append(_forbidden(f'updates may not remove a condition of type "{kind}"'))
        elif kind in DECIDED and subresource != APPROVAL and len(new) > len(old):
            causes.append(_forbidden(f'updates may not add a condition of type "{kind}"'))
    for number, condition in enumerate(conditions):
        if condition.get("type") in (*DECIDED, "Failed") and condition.get("status") != "True":
            told = f'Unsupported value: "{condition.get("status", "")}": supported values: "True"'
            field = f"status.conditions[{number}].status"
            causes.append({"reason": "FieldValueNotSupported", "message": told, "field": field})
    if {one.get("type") for one in conditions} >= set(DECIDED):
        causes.append(_invalid("status.conditions", "Approved and Denied conditions are mutually exclusive"))
    certificate = status.get("certificate") or ""
    if certificate != (before.get("certificate") or ""):
        if before.get("certificate"):
            causes.append(_forbidden("updates may not modify existing certificate content", "status.certificate"))
        try:
            x509.load_pem_x509_certificates(base64.b64decode(certificate, validate=True))
        except (binascii.Error, ValueError):
            causes.append(_invalid("status.certificate", "must contain at least one CERTIFICATE PEM block"))
    return causes


def _invalid(field: str, told: str) -> Object:
    return {"reason": "FieldValueInvalid", "message": f"Invalid value: {told}", "field": field}


def _forbidden(told: str, field: str = "status.conditions") -> Object:
    return {"reason": "FieldValueForbidden", "message": f"Forbidden: {told}", "field": field}
