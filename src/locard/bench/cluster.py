"""The work of a bench on a Ray cluster. Its machines must see the population's and the bench's folders by one path."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from locard.bench.run import Runner
from locard.errors import ArtefactError, LocardError, need

# A worker that is lost takes its task with it, and another does it; a task that kills ten is to blame itself.
_RETRIES = 10


def cluster(address: str) -> Runner:
    """Tasks on a Ray cluster, a processor each.

    Args:
        address: as Ray takes it: "auto", "HOST:PORT", "ray://HOST:PORT", or "local" for a cluster in this process's
            machine that ends with it.

    Raises:
        MissingExtraError: ray is not installed.
        ArtefactError: this process is connected to a cluster already.
    """
    ray = need("ray", extra="ray", why="running a bench on a cluster")
    if ray.is_initialized():
        raise ArtefactError(f"this process is connected to a Ray cluster already; ray.shutdown() before {address!r}")

    def run(work: Callable[[Any], str], tasks: dict[str, Any], *, until: float | None) -> Iterator[str]:
        if not tasks:
            return
        try:
            if not ray.is_initialized():
                ray.init(address=address, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ArtefactError(f"no Ray cluster at {address!r}: {error}") from error
        remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_do)
        shared, waiting, running = ray.put(work), list(tasks.values()), {}
        slots = max(1, int(ray.cluster_resources().get("CPU", 1)))
        while running or waiting:
            if until is not None and time.monotonic() >= until:
                waiting = []
            while waiting and len(running) < slots:
                task = waiting.pop(0)
                running[remote.remote(shared, task)] = task
            done, _ = ray.wait(list(running), num_returns=1) if running else ([], [])
            for one in done:
                del running[one]
                try:
                    yield ray.get(one)
                except ray.exceptions.RayTaskError as error:
                    # What the task raised, as any other runner gives it.
                    raise (error.cause if isinstance(error.cause, LocardError) else error) from None
                except _lost(ray) as error:
                    raise ArtefactError(
                        f"a piece of work has ended {_RETRIES + 1} workers, perhaps for want of memory; what was done "
                        "is kept"
                    ) from error

    return run


def _lost(ray: Any) -> tuple[type[Exception], ...]:
    names = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError")
    return tuple(getattr(ray.exceptions, name) for name in names)


def _do(work: Callable[[Any], str], task: Any) -> str:
    import os
    import warnings

    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    return work(task)
