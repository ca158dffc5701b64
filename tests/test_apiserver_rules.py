"""Selectors, rules, schemas, patches and field owners; without these the lab might accept what a cluster refuses."""

from __future__ import annotations

import copy as standard
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.apiserver import ApiError, Object, Store, cel, fields, jsonpath, patch, schema, selectors, table
from lab.apiserver.plain import copy
from lab.apiserver.registry import Resource

POD = Store().resource("pods")


def crd(spec: Object, **version: Any) -> Object:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.org"},
        "spec": {
            "group": "example.org",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
                    **version,
                }
            ],
        },
    }


def widgets(spec: Object, **version: Any) -> Resource:
    store = Store()
    store.create(crd(spec, **version))
    return store.resource("widgets")


# ---- selectors


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=one", True),
        ("app==one", True),
        ("app!=one", False),
        ("app in (one, two)", True),
        ("app notin (one)", False),
        ("zone notin (x)", True),
        ("app", True),
        ("!app", False),
        ("!zone,app=one", True),
        ("rank>2", True),
        ("rank<2", False),
        ("app=", False),
        ("example.org/x=y", True),
    ],
)
def test_label_selectors(text: str, matches: bool) -> None:
    obj = {"metadata": {"labels": {"app": "one", "rank": "3", "example.org/x": "y"}}}
    assert selectors.parse_labels(text)(obj) is matches


@pytest.mark.parametrize("text", ["app===", "app in one", "app in (one", "=one", "app=a b", "rank>x", "app=one,,"])
def test_label_selectors_that_are_none(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        selectors.parse_labels(text)
    assert caught.value.reason == "BadRequest"


def test_field_selectors() -> None:
    pod = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "a"}, "status": {"phase": "Running"}}
    assert selectors.parse_fields("spec.nodeName=a,status.phase!=Failed,metadata.namespace==n", POD)(pod)
    assert not selectors.parse_fields("spec.nodeName!=a", POD)(pod)
    assert selectors.parse_fields("status.podIP=,spec.hostNetwork=false", POD)(pod)
    with pytest.raises(ApiError, match=r"field label not supported: spec\.colour"):
        selectors.parse_fields("spec.colour=red", POD)


def test_field_selectors_of_a_custom_resource() -> None:
    resource = widgets({"type": "object"}, selectableFields=[{"jsonPath": ".spec.node"}])
    assert selectors.parse_fields("spec.node=a", resource)({"metadata": {}, "spec": {"node": "a"}})
    with pytest.raises(ApiError):
        selectors.parse_fields("spec.count=1", resource)


# ---- CEL


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("self == oldSelf", False),
        ("self.a == oldSelf.a", True),
        ("has(self.a)", True),
        ("!has(self.z)", True),
        ("has(self.deep.x) && self.deep.x > 1", True),
        ("self.a in ['x', 'y']", True),
        ("'k' in self.deep", False),
        ("self.n >= 3 && self.n < 4 || false", True),
        ("self.n + 1 == 4 && self.n * 2 - 1 == 5 && -7 / 2 == -3 && -7 % 2 == -1", True),
        ("size(self.list) == 2 && self.list.size() == 2", True),
        ("self.list.all(e, e.startsWith('n'))", True),
        ("self.list.exists(e, e == 'no') && !self.list.exists(e, e == 'yes')", True),
        ("self.list.map(e, size(e)) == [2, 3]", True),
        ("self.list.filter(e, e.contains('e')) == ['new'] && self.list.exists_one(e, e.endsWith('w'))", True),
        ("self.list[0] == 'no' && self['a'] == \"x\"", True),
        ("self.a.matches('^[xyz]$')", True),
        ("self.n > 2 ? self.a == 'x' : false", True),
        ("self.z == 1 || self.a == 'x'", True),
        ("self.z == 1 && self.a == 'q'", False),
        ("self.n == true", False),
        ("self.a == null", False),
    ],
)
def test_cel(rule: str, expected: bool) -> None:
    new = {"a": "x", "n": 3, "deep": {"x": 2}, "list": ["no", "new"]}
    old = {"a": "x", "n": 2}
    assert cel.compile_rule(rule).evaluate({"self": new, "oldSelf": old}) is expected


@pytest.mark.parametrize(
    "rule",
    [
        "self.a.lowerAscii() == 'x'",
        "duration(self.a) > duration('1s')",
        "self ==",
        "other == 1",
        "self.a = 1",
        "has(self)",
        "self.list.sum()",
        "@self",
        "self.a.startsWith()",
        "[1, 2",
        "self == oldSelf extra",
        "'\\q' == self",
    ],
)
def test_cel_that_is_beyond_us_is_refused_when_the_crd_is_created(rule: str) -> None:
    with pytest.raises(cel.CelError):
        cel.compile_rule(rule)
    with pytest.raises(ApiError) as caught:
        Store().create(crd({"type": "object", "x-kubernetes-validations": [{"rule": rule}]}))
    assert caught.value.status == 500


@pytest.mark.parametrize("rule", ["self.z == 1", "self.a + 1 == 2", "!self.a", "self.n / 0 == 1", "self.list[9] == ''"])
def test_cel_errors_are_told(rule: str) -> None:
    with pytest.raises(cel.CelError):
        cel.compile_rule(rule).evaluate({"self": {"a": "x", "n": 1, "list": []}})


# ---- schemas


def causes(spec: Object, value: Any, old: Any = None) -> list[str]:
    top = {"type": "object", "properties": {"spec": spec}}
    before = None if old is None else {"spec": old}
    return [f"{cause['field']}: {cause['message']}" for cause in schema.validate(top, {"spec": value}, before)]


@pytest.mark.parametrize(
    ("spec", "value", "told"),
    [
        ({"type": "integer"}, "x", 'must be of type integer: "string"'),
        ({"type": "integer"}, True, 'must be of type integer: "boolean"'),
        ({"type": "integer"}, 1.5, 'must be of type integer: "number"'),
        ({"type": "string"}, None, 'must be of type string: "null"'),
        ({"type": "integer", "maximum": 3}, 4, "less than or equal to 3"),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": True}, 3, "greater than 3"),
        ({"type": "number", "multipleOf": 2}, 3, "multiple of 2"),
        ({"type": "string", "pattern": "^a+$"}, "b", "should match '^a+$'"),
        ({"type": "string", "minLength": 2}, "b", "at least 2 chars long"),
        ({"type": "string", "maxLength": 2}, "abc", "Too long: may not be more than 2 bytes"),
        ({"type": "string", "format": "date-time"}, "soon", "must be of type date-time"),
        ({"type": "string", "enum": ["a"]}, "b", 'Unsupported value: "b": supported values: "a"'),
        ({"type": "array", "minItems": 1}, [], "at least 1 items"),
        ({"type": "array", "maxItems": 1}, [1, 2], "Too many: 2: must have at most 1 items"),
        ({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}, ["a", "a"], "Duplicate"),
        ({"type": "array", "items": {"type": "string"}}, ["a", 1], "spec[1]: Invalid value"),
        ({"type": "object", "required": ["x"]}, {}, "spec.x: Required value"),
        ({"type": "object", "maxProperties": 1}, {"a": 1, "b": 2}, "Too many"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"a": 1}, "spec.a: Invalid value"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, [], "anyOf"),
        ({"oneOf": [{"minimum": 1}, {"minimum": 2}]}, 3, "oneOf"),
        ({"not": {"enum": ["a"]}}, "a", "not validate"),
        ({"allOf": [{"maxLength": 1}]}, "ab", "Too long"),
        ({"x-kubernetes-int-or-string": True}, 1.5, "integer or string"),
    ],
)
def test_what_a_schema_refuses(spec: Object, value: Any, told: str) -> None:
    found = causes(spec, value)
    assert len(found) == 1
    assert told in found[0]


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ({"type": "string", "nullable": True}, None),
        ({"x-kubernetes-int-or-string": True}, "80%"),
        ({"type": "number"}, 1),
        ({"type": "integer"}, 2.0),
        ({"type": "string", "format": "date-time"}, "2026-11-22T20:34:47Z"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, 1),
    ],
)
def test_what_a_schema_accepts(spec: Object, value: Any) -> None:
    assert causes(spec, value) == []


def test_rules_name_their_place() -> None:
    spec = {
        "type": "object",
        "properties": {
            "x": {
                "type": "integer",
                "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "x stays"}],
            },
            "y": {"type": "integer"},
        },
        "x-kubernetes-validations": [
            {"rule": "self.y > 0", "messageExpression": "'y is not ' + 'positive'", "fieldPath": ".y"}
        ],
    }
    assert causes(spec, {"x": 1, "y": 1}) == []
    assert causes(spec, {"x": 2, "y": 1}, {"x": 1, "y": 1}) == ['spec.x: Invalid value: "integer": x stays']
    assert causes(spec, {"y": 0}) == ['spec.y: Invalid value: "object": y is not positive']
    assert causes(spec, {"x": 1}) == ['spec.y: Invalid value: "object": no such key: y evaluating rule: self.y > 0']


def test_what_did_not_change_is_not_held_against_an_update() -> None:
    spec = {"type": "object", "properties": {"old": {"type": "string", "maxLength": 1}, "new": {"type": "string"}}}
    assert causes(spec, {"old": "too long", "new": "x"}, {"old": "too long"}) == []
    assert causes(spec, {"old": "longer still"}, {"old": "too long"})


def test_pruning_and_defaults() -> None:
    top = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "mode": {"type": "string", "default": "a"},
                    "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"k": {}}}},
                    "list": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"d": {"type": "object", "default": {"x": 1}}}},
                    },
                },
            }
        },
    }
    obj: Object = {
        "kind": "Widget",
        "metadata": {"name": "w", "anything": 1},
        "spec": {"colour": "red", "any": {"q": 1}, "map": {"m": {"k": 1, "z": 2}}, "list": [{}, {"e": 1}]},
        "extra": 1,
    }
    assert sorted(schema.prune(top, obj)) == ["extra", "spec.colour", "spec.list[1].e", "spec.map.m.z"]
    schema.default(top, obj)
    assert obj["spec"] == {
        "mode": "a",
        "any": {"q": 1},
        "map": {"m": {"k": 1}},
        "list": [{"d": {"x": 1}}, {"d": {"x": 1}}],
    }
    obj["spec"]["list"][0]["d"]["x"] = 2
    assert obj["spec"]["list"][1]["d"]["x"] == 1


# ---- patches

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=2), children, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=2), JSON, max_size=3))
def test_copies_are_equal_and_apart(value: Object) -> None:
    copied = copy(value)
    assert copied == value == standard.deepcopy(value)
    for key in copied:
        if isinstance(copied[key], dict | list):
            assert copied[key] is not value[key]


def test_merge_patch_is_that_of_the_rfc() -> None:
    target = {"a": "b", "c": {"d": "e", "f": "g"}, "list": [1, 2]}
    assert patch.merge(target, {"a": "z", "c": {"f": None}, "list": [3]}) == {"a": "z", "c": {"d": "e"}, "list": [3]}
    assert target["c"] == {"d": "e", "f": "g"}
    assert patch.merge({}, {"a": {"b": {"c": None}}}) == {"a": {"b": {}}}


def test_json_patch() -> None:
    target = {"a": [1, 2], "b": {"x/y": 1}}
    changed = patch.json_patch(
        target,
        [
            {"op": "add", "path": "/a/-", "value": 3},
            {"op": "add", "path": "/a/0", "value": 0},
            {"op": "replace", "path": "/b/x~1y", "value": 2},
            {"op": "copy", "from": "/b", "path": "/c"},
            {"op": "move", "from": "/a", "path": "/d"},
            {"op": "remove", "path": "/b"},
            {"op": "test", "path": "/d", "value": [0, 1, 2, 3]},
        ],
    )
    assert changed == {"c": {"x/y": 2}, "d": [0, 1, 2, 3]}
    assert target == {"a": [1, 2], "b": {"x/y": 1}}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a", "value": 2},
        {"op": "replace", "path": "/z", "value": 2},
        {"op": "remove", "path": "/z"},
        {"op": "add", "path": "/list/5", "value": 2},
        {"op": "spin", "path": "/a"},
        {"op": "add", "path": "a", "value": 1},
        {"op": "replace", "path": "", "value": 1},
        {"path": "/a"},
    ],
)
def test_json_patch_that_does_not_apply(operation: Object) -> None:
    with pytest.raises(ApiError) as caught:
        patch.json_patch({"a": 1, "list": [1]}, [operation])
    assert caught.value.status == 422


def test_strategic_merge_knows_what_belongs_together() -> None:
    pod: Object = {
        "metadata": {"finalizers": ["a", "b"], "labels": {"x": "1", "y": "2"}},
        "spec": {
            "containers": [
                {"name": "one", "image": "i", "ports": [{"containerPort": 80, "name": "web"}], "args": ["a"]},
                {"name": "two", "image": "j"},
            ],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"key": "k"}],
        },
    }
    changed = patch.strategic(
        POD,
        pod,
        {
            "metadata": {
                "labels": {"x": None},
                "finalizers": ["c"],
                "$deleteFromPrimitiveList/finalizers": ["a"],
            },
            "spec": {
                "$setElementOrder/containers": [{"name": "three"}, {"name": "one"}],
                "containers": [
                    {"name": "one", "ports": [{"containerPort": 81}], "args": ["b"]},
                    {"name": "two", "$patch": "delete"},
                    {"name": "three", "image": "k"},
                ],
                "volumes": [{"name": "v", "emptyDir": None, "$retainKeys": ["name", "hostPath"], "hostPath": {}}],
                "tolerations": [{"key": "other"}],
            },
        },
    )
    spec = changed["spec"]
    assert [container["name"] for container in spec["containers"]] == ["three", "one"]
    assert spec["containers"][1]["ports"] == [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]
    assert spec["containers"][1]["args"] == ["b"]
    assert spec["volumes"] == [{"name": "v", "hostPath": {}}]
    assert spec["tolerations"] == [{"key": "other"}]
    assert changed["metadata"] == {"labels": {"y": "2"}, "finalizers": ["b", "c"]}
    assert pod["spec"]["containers"][1]["name"] == "two"


def test_strategic_merge_replaces_when_told() -> None:
    pod = {"spec": {"containers": [{"name": "one"}], "nodeSelector": {"a": "b"}}}
    changed = patch.strategic(
        POD,
        pod,
        {"spec": {"containers": [{"name": "two"}, {"$patch": "replace"}], "nodeSelector": {"$patch": "replace"}}},
    )
    assert changed == {"spec": {"containers": [{"name": "two"}], "nodeSelector": {}}}
    with pytest.raises(ApiError, match="does not contain declared merge key: name"):
        patch.strategic(POD, pod, {"spec": {"containers": [{"image": "i"}]}})


# ---- who owns what


def owned(obj: Object) -> dict[str, Object]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"].get("managedFields", [])}


def widget(**spec: Any) -> Object:
    return {
        "apiVersion": "example.org/v1",
        "kind": "Widget",
        "metadata": {"name": "w", "namespace": "default"},
        "spec": spec,
    }


RESOURCE = widgets(
    {
        "type": "object",
        "properties": {
            "parts": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}},
            },
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic"},
        },
    }
)


def test_whoever_writes_a_field_owns_it() -> None:
    first = widget(a=1, b=1)
    fields.updated(RESOURCE, None, first, "one")
    second = widget(a=2, c=1)
    fields.updated(RESOURCE, first, second, "two")
    assert owned(second) == {
        "one": {"f:spec": {}},
        "two": {"f:spec": {"f:a": {}, "f:c": {}}},
    }


def test_lists_of_things_with_names_are_owned_by_thing() -> None:
    obj = widget(parts=[{"name": "x", "size": 1}], tags=["t"], whole={"k": {"deep": 1}}, plain=[{"name": "x"}])
    applied = fields.applied(RESOURCE, None, obj, "one", "", False)
    assert owned(applied)["one"] == {
        "f:spec": {
            "f:parts": {'k:{"name":"x"}': {".": {}, "f:name": {}, "f:size": {}}},
            "f:tags": {'v:"t"': {}},
            "f:whole": {},
            "f:plain": {},
        }
    }


def test_applying_less_removes_what_nobody_else_wants() -> None:
    live = fields.applied(
        RESOURCE, None, widget(a=1, b=1, parts=[{"name": "x", "size": 1}, {"name": "y", "size": 2}]), "one", "", False
    )
    live = fields.applied(RESOURCE, live, widget(b=1), "two", "", False)
    live = fields.applied(RESOURCE, live, widget(parts=[{"name": "y", "size": 3}]), "one", "", False)
    assert live["spec"] == {"b": 1, "parts": [{"name": "y", "size": 3}]}
    assert owned(live)["two"] == {"f:spec": {"f:b": {}}}


def test_two_appliers_of_one_field_conflict() -> None:
    live = fields.applied(RESOURCE, None, widget(a=1, b=1), "one", "", False)
    same = fields.applied(RESOURCE, live, widget(a=1), "two", "", False)
    assert set(owned(same)) == {"one", "two"}
    with pytest.raises(ApiError) as caught:
        fields.applied(RESOURCE, live, widget(a=2, b=2), "two", "", False)
    assert caught.value.message == 'Apply failed with 2 conflicts: conflicts with "one":\n- .spec.a\n- .spec.b'
    forced = fields.applied(RESOURCE, live, widget(a=2), "two", "", True)
    assert forced["spec"] == {"a": 2, "b": 1}
    assert owned(forced) == {"one": {"f:spec": {"f:b": {}}}, "two": {"f:spec": {"f:a": {}}}}


# ---- tables and paths


def test_json_paths() -> None:
    obj = {"status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk", "status": "False"}]}}
    assert jsonpath.find('.status.conditions[?(@.type=="Ready")].status', obj) == ["True"]
    assert jsonpath.find(".status.conditions[*].type", obj) == ["Ready", "Disk"]
    assert jsonpath.find(".status.conditions[1].type", obj) == ["Disk"]
    assert jsonpath.find(".metadata.labels['a.b/c']", {"metadata": {"labels": {"a.b/c": "x"}}}) == ["x"]
    assert jsonpath.find(".metadata.labels.a\\.b/c", {"metadata": {"labels": {"a.b/c": "x"}}}) == ["x"]
    assert jsonpath.find(".spec.nothing", obj) == []
    with pytest.raises(ApiError):
        Store().create(
            crd({"type": "object"}, additionalPrinterColumns=[{"name": "x", "type": "string", "jsonPath": ".a[?(1)]"}])
        )


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (5, "5s"),
        (119, "119s"),
        (125, "2m5s"),
        (601, "10m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (9 * 3600 + 60, "9h"),
        (50 * 3600, "2d2h"),
        (10 * 86400, "10d"),
        (800 * 86400, "2y70d"),
        (4000 * 86400, "10y"),
    ],
)
def test_ages(seconds: int, told: str) -> None:
    assert table._duration(seconds) == told


def test_pods_and_nodes_as_rows() -> None:
    pod = {
        "metadata": {"name": "p"},
        "spec": {"containers": [{}, {}], "nodeName": "a"},
        "status": {
            "phase": "Running",
            "podIP": "10.1.1.1",
            "containerStatuses": [
                {"ready": True, "restartCount": 2},
                {"ready": False, "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
            ],
        },
    }
    cells = table.row(POD, pod, "None")["cells"]
    assert cells == ["p", "1/2", "CrashLoopBackOff", "3", "<unknown>", "10.1.1.1", "a", "<none>", "<none>"]
    node = {
        "metadata": {"name": "a", "labels": {"node-role.kubernetes.io/worker": ""}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "False"}],
            "addresses": [{"type": "InternalIP", "address": "172.30.0.11"}],
        },
    }
    cells = table.row(Store().resource("nodes"), node, "None")["cells"]
    assert cells[:3] == ["a", "NotReady,SchedulingDisabled", "worker"]
    assert cells[5] == "172.30.0.11"
