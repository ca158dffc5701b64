"""The filter that "seccompProfile: RuntimeDefault" puts around a container, put around a program here: without it a
call that every real node refuses would be found there first.

`python -m tests.seccomp CAPABILITIES -- PROGRAM...` becomes the program. The filters of all recorded runtimes are laid
one upon the other: what one of them refuses is refused. As runc does, by libseccomp.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "fixtures" / "seccomp"
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
EPERM, ENOSYS = 1, 38
NEWER = 128  # numbers of system calls after the last a profile knows: runc says of these that there is no such call
COMPARE = {f"SCMP_CMP_{name}": one for one, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)}


class Argument(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_uint),
        ("compare", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def word(capabilities: Iterable[str]) -> str:
    """A set of capabilities as the recordings name it."""
    return "+".join(sorted(capabilities))


@functools.cache
def why_not() -> str:
    """Why no filter can be made here, "" where one can."""
    try:
        _library()
    except OSError as error:
        return f"no libseccomp on this machine: {error}"
    machines = {json.loads(path.read_text())["machine"] for path in RECORDED.glob("*.json")}
    return "" if platform.machine() in machines else f"the filters were recorded for {', '.join(machines)}"


@functools.cache
def _library() -> ctypes.CDLL:
    """Raises OSError."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = library.seccomp_load.argtypes = (ctypes.c_void_p,)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(Argument),
    )
    return library


def confine(capabilities: Iterable[str]) -> None:
    """This process and all it starts, for good. Raises OSError."""
    for path in sorted(RECORDED.glob("*.json")):
        _load(json.loads(path.read_text()), word(capabilities))


def _load(profile: dict[str, Any], capabilities: str) -> None:
    library = _library()
    filtered = library.seccomp_init(_action(profile["default"], profile["errno"]))
    try:
        last = 0
        for rule in (*profile["always"], *profile["with"][capabilities]):
            action = _action(rule["action"], rule.get("errnoRet", EPERM))
            arguments = [
                Argument(one["index"], COMPARE[one["op"]], one["value"], one.get("valueTwo", 0))
                for one in rule.get("args") or ()
            ]
            for name in rule["names"]:
                number = library.seccomp_syscall_resolve_name(name.encode())
                if number < 0:  # of another machine, or newer than this libseccomp
                    continue
                last = max(last, number)
                _add(filtered, action, number, arguments)
        for number in range(last + 1, last + NEWER):
            _add(filtered, ERRNO | ENOSYS, number, [])
        _checked(library.seccomp_load(filtered))
    finally:
        library.seccomp_release(filtered)


def _action(name: str, errno: int) -> int:
    return {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": ERRNO | errno}[name]


def _add(filtered: int, action: int, number: int, arguments: list[Argument]) -> None:
    _checked(
        _library().seccomp_rule_add_array(
            filtered, action, number, len(arguments), (Argument * len(arguments))(*arguments)
        )
    )


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(-result, os.strerror(-result))


if __name__ == "__main__":
    confine([one for one in sys.argv[1].split("+") if one])
    os.execvp(sys.argv[3], sys.argv[3:])
