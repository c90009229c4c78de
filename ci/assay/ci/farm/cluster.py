"""The Dask cluster that jobs run on: one that is there, or one of this machine's own processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from assay.errors import FarmError, MissingDependencyError

__all__ = ["TIMING", "connected", "local_cluster"]

TIMING = "timing"
"""The resource of workers on machines that may be timed on; each has one, and a job that times takes it."""

_CONNECT_SECONDS = 20


def _distributed() -> Any:
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise MissingDependencyError("distributed", "farm") from error
    return distributed


@contextmanager
def local_cluster(workers: int) -> Iterator[Any]:
    """A client of a cluster of ``workers`` processes on this machine, of which others see nothing.

    Raises MissingDependencyError without the extra ``farm``.
    """
    distributed = _distributed()
    with (
        _quiet(),
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1",
            dashboard_address="127.0.0.1:0", resources={TIMING: 1}, silence_logs=50, memory_limit=0,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        yield client


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of the scheduler at ``address``.

    Raises FarmError where none answers there, MissingDependencyError without the extra ``farm``.
    """
    distributed = _distributed()
    with _quiet():
        try:
            client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
            reason = (str(error) or repr(error)).splitlines()[0]
            raise FarmError(
                f"No Dask scheduler answers at {address}: {reason}.",
                hint="`dask scheduler` starts one; its address is like tcp://192.168.1.2:8786.",
            ) from error
        with client:
            yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of Dask, which are for whoever writes graphs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
