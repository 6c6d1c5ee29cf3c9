"""Handing a compiled function to threads that are awake, and a place for them to meet. For Numba functions; `workers` keeps the threads.

Waking a thread that sleeps takes tens of microseconds, a small recurrence as long. So a worker that has ended its job spins for a moment
before it goes to sleep, inside a compiled loop without the interpreter's lock, on a mailbox: numbers of 64 bits in a cache line of its own.

    STATE   0 WAITING  spinning                     the worker may make it ASLEEP, a caller CLAIMED
            1 ASLEEP   in Python                    a caller may make it CLAIMED, and then wakes the worker
            2 CLAIMED  a job is on its way          the caller makes it WORKING, or WAITING where no job came
            3 WORKING                               the worker makes it WAITING
    ENTRY, DATA, SHARE, SHARES                      the job: entry(share, shares, data), addresses of a C function and of its arguments

A caller claims workers before it posts, so none falls asleep with a job in its box. Whoever waits for a job to end or for others to meet
spins for a while and then naps between looks, so that more threads than cores come through, too.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

from llvmlite import binding, ir
from numba import extending, njit, types
from numba.core import cgutils

from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array

intrinsic: Callable[[Any], Any] = extending.intrinsic
_types: Any = types
_cgutils: Any = cgutils
WAITING, ASLEEP, CLAIMED, WORKING = range(4)
MAILBOX = 64  # bytes: STATE, ENTRY, DATA, SHARE, SHARES, 8 each
PATIENCE = 4000  # looks before whoever waits sleeps: some 100 microseconds

_word, _nothing = ir.IntType(64), ir.VoidType()
_pause = {"x86_64": "llvm.x86.sse2.pause"}.get(binding.get_process_triple().split("-")[0])
if sys.platform == "win32":
    _sleep, _nap_length = ctypes.windll.kernel32.Sleep, 1  # milliseconds
else:
    _sleep, _nap_length = ctypes.CDLL(None).usleep, 20  # microseconds
binding.add_symbol("minirnn_sleep", ctypes.cast(_sleep, ctypes.c_void_p).value)


def _at(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _word.as_pointer())


def _external(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    return builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


@intrinsic
def _load(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_at(builder, arguments[0]), "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def _store(context: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[1], _at(builder, arguments[0]), "release", 8)

    return types.void(types.int64, types.int64), generate


@intrinsic
def _exchange(context: Any, address: Any, expected: Any, new: Any) -> Any:
    """What stood at `address`; where that is `expected`, `new` stands there now."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        both = builder.cmpxchg(_at(builder, arguments[0]), arguments[1], arguments[2], "seq_cst", "seq_cst")
        return builder.extract_value(both, 0)

    return types.int64(types.int64, types.int64, types.int64), generate


@intrinsic
def _add(context: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.atomic_rmw("add", _at(builder, arguments[0]), arguments[1], "acq_rel")

    return types.void(types.int64, types.int64), generate


@intrinsic
def _relax(context: Any) -> Any:
    """Leaves the core's resources to its other thread for some cycles."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _pause:
            builder.call(_external(builder, _pause, _nothing), [])

    return types.void(), generate


@intrinsic
def _nap(context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = ir.IntType(32)
        builder.call(_external(builder, "minirnn_sleep", number, number), [number(_nap_length)])

    return types.void(), generate


@intrinsic
def _call(context: Any, entry: Any, p: Any, P: Any, data: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        entry, *rest = arguments
        builder.call(builder.inttoptr(entry, ir.FunctionType(_nothing, [_word] * 3).as_pointer()), rest)

    return types.void(*[types.int64] * 4), generate


@intrinsic
def _job(context: Any, function: Any, arguments: Any) -> Any:
    """The addresses of a C function entry(p, P, data) that calls function(p, P, *arguments), and of `arguments` in the caller's frame."""
    inner = function.get_call_type(context, (types.int64, types.int64, *arguments.types), {})
    signature = _types.UniTuple(types.int64, 2)(function, arguments)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        result = function.dispatcher.get_compile_result(inner)
        context.add_linking_libs([result.library])
        data = _cgutils.alloca_once_value(builder, values[1])
        name = f"entry.{result.fndesc.mangled_name}"
        entry = ir.Function(builder.module, ir.FunctionType(_nothing, [_word] * 3), name)
        entry.linkage = "internal"
        inside = ir.IRBuilder(entry.append_basic_block())
        p, P, address = entry.args
        kept = inside.load(inside.inttoptr(address, data.type))
        loaded = [inside.extract_value(kept, k) for k in range(len(arguments.types))]
        context.call_internal_no_propagate(inside, result.fndesc, inner, [p, P, *loaded])
        inside.ret_void()
        both = [builder.ptrtoint(entry, _word), builder.ptrtoint(data, _word)]
        return context.make_tuple(builder, signature.return_type, both)

    return signature, generate


@njit(error_model="numpy")
def _wait_between(looks: int) -> None:
    """Between two looks at a number that another thread will change, after this many."""
    if looks < PATIENCE:
        _relax()
    else:
        _nap()


@njit(error_model="numpy")
def meet(counter: Array, goal: int) -> None:
    """Wait until `goal` arrivals have been counted; counter (1,) int64, 0 at first. P threads that meet for the n-th time pass n P."""
    address = counter.ctypes.data
    _add(address, 1)
    looks = 0
    while _load(address) < goal:
        _wait_between(looks)
        looks += 1


@njit(error_model="numpy")
def part(p: int, P: int, by_units: bool, panels: int) -> tuple[int, int, int, int]:
    """q, stride, first, last: thread p of P does the sequences q, q + stride, ... of a recurrence, and the panels first .. last - 1."""
    if by_units:
        return 0, 1, panels * p // P, panels * (p + 1) // P
    return p, P, 0, panels


@compiled(error_model="numpy")
def serve(mailbox: int, patience: int) -> int:
    """A worker's loop: does the jobs that come, until none has come for so many looks. Returns the state it found then."""
    looks = 0
    while looks < patience:
        if _load(mailbox) == WORKING:
            _call(_load(mailbox + 8), _load(mailbox + 24), _load(mailbox + 32), _load(mailbox + 16))
            _store(mailbox, WAITING)
            looks, patience = 0, PATIENCE
        else:
            _relax()
            looks += 1
    state: int = _exchange(mailbox, WAITING, ASLEEP)
    return state


@compiled(error_model="numpy")
def claim(mailboxes: int, count: int) -> int:
    """Claim the first `count` workers; bit k of the result says that worker k is to be woken."""
    sleepers = 0
    for k in range(count):
        mailbox = mailboxes + k * MAILBOX
        if _exchange(mailbox, WAITING, CLAIMED) == ASLEEP:
            _exchange(mailbox, ASLEEP, CLAIMED)
            sleepers |= 1 << k
    return sleepers


@compiled(error_model="numpy")
def release(mailboxes: int, count: int, sleepers: int) -> None:
    """Take back the claims for which no job was posted; `sleepers`: the workers that were asleep and have not been woken."""
    for k in range(count):
        _exchange(mailboxes + k * MAILBOX, CLAIMED, ASLEEP if sleepers >> k & 1 else WAITING)


@njit(error_model="numpy")
def _post_and_wait(mailboxes: int, P: int, entry: int, data: int) -> None:
    for p in range(1, P):
        mailbox = mailboxes + (p - 1) * MAILBOX
        _store(mailbox + 8, entry)
        _store(mailbox + 16, data)
        _store(mailbox + 24, p)
        _store(mailbox + 32, P)
        _store(mailbox, WORKING)
    _call(entry, 0, P, data)
    for p in range(1, P):
        looks = 0
        while _load(mailboxes + (p - 1) * MAILBOX) == WORKING:
            _wait_between(looks)
            looks += 1


_shared: Any = None  # in each copy of `_launch`, the function that it shares out


def _launch(mailboxes: int, P: int, *arguments: Any) -> None:
    entry, data = _job(_shared, arguments)
    _post_and_wait(mailboxes, P, entry, data)


def launcher(function: Any) -> Callable[..., None]:
    """launch(mailboxes, P, *arguments), compiled: function(p, P, *arguments) for p = 0 .. P - 1, here and in P - 1 claimed workers."""
    copy = FunctionType(_launch.__code__, {**globals(), "_shared": function}, _launch.__name__)
    copy.__qualname__ = f"launch_{function.__module__}_{function.__qualname__}".replace(".", "_")  # Numba keeps it on disk by this name
    return compiled(error_model="numpy")(copy)
