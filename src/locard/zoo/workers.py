"""Tasks with an order among them, in processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_end
from typing import Any, TypeVar

from locard.errors import ArtefactError

T = TypeVar("T")
R = TypeVar("R")


def run_all(
    work: Callable[[T], R],
    tasks: Mapping[str, T],
    before: Mapping[str, str],
    *,
    processes: int,
    until: float | None = None,
) -> Iterator[R]:
    """Do all tasks, each after the one it waits for.

    Args:
        work: does one task; sent once to each process.
        tasks: by name.
        before: for some tasks, the name of the task that must be done first; without circles.
        processes: how many at a time; 1 does them here.
        until: time of `time.monotonic` from which on no task is begun; those that run are finished.

    Yields:
        Results as they come.

    Raises:
        ArtefactError: a worker died.
        Exception: the first that a task raised; tasks that have not begun are dropped.
    """
    if processes == 1 or len(tasks) < 2:
        for name in _in_order(tasks, before):
            if _over(until):
                return
            yield work(tasks[name])
        return
    # A worker imports Locard afresh: a fork would copy torch's threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    workers = min(processes, len(tasks))
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(work,))
    try:
        waiting = dict(tasks)
        running: dict[Future[Any], str] = {}
        finished: set[str] = set()
        while running or (waiting and not _over(until)):
            ready = [] if _over(until) else [n for n in waiting if n not in before or before[n] in finished]
            # None in a queue, where it could no longer be told that time is over.
            for name in ready[: workers - len(running)]:
                running[pool.submit(_do, waiting.pop(name))] = name
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                finished.add(running.pop(future))
                yield future.result()
    except BrokenProcessPool as error:
        raise ArtefactError(
            "a worker process died before its work was done: memory may have run out, or the program that calls this "
            "does not guard its start with `if __name__ == '__main__':`. Finished models are kept; run again to go on, "
            "with processes=1 to stay in one process"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _over(until: float | None) -> bool:
    return until is not None and time.monotonic() >= until


def _in_order(tasks: Mapping[str, Any], before: Mapping[str, str]) -> Iterator[str]:
    done: set[str] = set()
    for name in tasks:
        chain = [name]
        while chain[-1] in before and chain[-1] not in done:
            chain.append(before[chain[-1]])
        for one in reversed(chain):
            if one not in done:
                done.add(one)
                yield one


_work: Callable[[Any], Any] | None = None


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    os.environ["OMP_NUM_THREADS"] = "1"
    # A library's advice to programmers is no part of what a build says.
    warnings.simplefilter("ignore")
    # Ctrl-C reaches the whole group of processes: workers go at once and without a word, the parent says what happened.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed says no goodbye, and its workers would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_end([parent.sentinel])
        os._exit(1)


def _do(task: Any) -> Any:
    if _work is None:
        raise RuntimeError("the worker was not begun")
    return _work(task)
