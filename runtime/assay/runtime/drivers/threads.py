"""The thread count of TVM's kernels.

TVM keeps one pool of worker threads per calling thread. What it does by itself does not suit a library that
lives in someone else's process: on x86 it takes half the logical CPUs whatever they are, it binds the calling
thread to the first of them for good, and a pool can never grow. So a pool is made here, of the size that is
wanted and without binding, before a thread's first kernel; a thread that wants more than its pool has, be it
because TVM made that pool, gets a helper thread with a larger one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from assay.runtime.drivers.ffi import import_tvm_ffi

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["call_with_threads"]

_BIND = "TVM_BIND_THREADS"
_SHARE_ALL_CORES = -3
_environment_lock = threading.Lock()


class _Pool(threading.local):
    """TVM's pool of the current thread: threads it has (0: not known yet) and threads it is set to use."""

    def __init__(self) -> None:
        self.size = 0
        self.used = 0
        self.helper: ThreadPoolExecutor | None = None
        self.helper_size = 0


_pool = _Pool()


def call_with_threads(threads: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` such that the kernels it calls use ``threads`` threads, this one included."""
    if _pool.used != threads and (_pool.size == 0 or threads <= _pool.size):
        _configure(threads)
    if _pool.used == threads:
        return function(*arguments)
    if _pool.helper is None or _pool.helper_size < threads:
        if _pool.helper is not None:
            _pool.helper.shutdown(wait=False)
        from concurrent.futures import ThreadPoolExecutor

        _pool.helper = ThreadPoolExecutor(1, thread_name_prefix="assay-helper")
        _pool.helper_size = threads
    return _pool.helper.submit(call_with_threads, threads, function, *arguments).result()


def _configure(threads: int) -> None:
    """Set the pool of this thread to ``threads``, or to as many as it has; makes it when there is none."""
    ffi = import_tvm_ffi()
    size = _pool.size or threads
    # The number of CPUs in the list is the size of a new pool. Their numbers only matter for binding, which
    # is off unless the user asked for it: bound threads of two processes would sit on the same few CPUs.
    cpus = [str(number) for number in range(size)]
    with _environment_lock:
        bind = os.environ.get(_BIND)
        if bind is None:
            os.environ[_BIND] = "0"
        try:
            ffi.get_global_func("runtime.config_threadpool")(_SHARE_ALL_CORES, threads, cpus)
        finally:
            if bind is None:
                del os.environ[_BIND]
    _pool.used = int(ffi.get_global_func("runtime.NumThreads")())
    # Fewer than wanted: somebody else made this thread's pool, and that is all it has.
    _pool.size = size if _pool.used == threads else _pool.used


def _forget_workers() -> None:
    """After a fork only the forking thread is left of its pool, and its helper is gone."""
    _pool.size = min(_pool.size, 1)
    _pool.used = 0
    _pool.helper = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)
