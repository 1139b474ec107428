"""Several processes of this machine, each with a model on a GPU of its own or with a share of the processors.

The parent lists the images, hands them out one by one, and writes the manifest.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from cliper.decode_pool import DecodePool
from cliper.errors import ResourceError
from cliper.runner.engines.threads import portable_error, process_items
from cliper.runner.run import EngineStats, Run
from cliper.runner.storage import Storage
from cliper.runner.task import Task

__all__ = ["processes_engine"]


@contextlib.contextmanager
def processes_engine(
    task: Task, *, workers: int, threads: int, device: str | None
) -> Iterator[Callable[[Run], EngineStats]]:
    """Start processes and load a model in each; without a device, or on ``"cuda"``, they take GPUs in turn.

    Raises CliperError if a model cannot be loaded, ResourceError if a process died.
    """
    import torch

    gpus = torch.cuda.device_count() if device in (None, "cuda") and torch.cuda.is_available() else 0
    share = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")  # a forked child can use neither CUDA nor PyTorch's threads
    processes: dict[Connection, Any] = {}
    try:
        for number in range(workers):
            here, there = context.Pipe()
            arguments = (task, f"cuda:{number % gpus}" if gpus else None, share, threads, there)
            processes[here] = context.Process(target=_worker_main, args=arguments, daemon=True)
            processes[here].start()
            there.close()
        for connection in processes:
            message = _receive(connection)  # that its model is loaded
            if isinstance(message, Exception):
                raise message
        yield lambda run: _distribute(run, processes)
    finally:
        for process in processes.values():
            process.kill()
            process.join()


def _distribute(run: Run, processes: dict[Connection, Any]) -> EngineStats:
    """Hand out images until there are no more. After an error, wait for the files that the processes are writing."""
    pending, stats = run.pending(), EngineStats()
    failure: BaseException | None = None
    running = set(processes)
    for connection in processes:
        connection.send(run.run_dir.storage.uri)
    while running:
        try:
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                message = _receive(ready)
                if message is None:  # it asks for an image
                    item = next(pending, None) if failure is None else None
                    with contextlib.suppress(BrokenPipeError):
                        ready.send(item)
                elif isinstance(message, tuple):
                    run.add(*message)
                else:
                    running.remove(ready)
                    if isinstance(message, Exception):
                        raise message
                    stats += message
        except BaseException as error:
            if failure is None:
                failure = error
                for process in processes.values():
                    process.terminate()
            elif not isinstance(error, Exception):  # the second Ctrl-C
                raise
    if failure is not None:
        raise failure
    return stats


def _receive(connection: Connection) -> Any:
    """A message: None, an image's number and record, or the last one: statistics, or an error."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        return ResourceError(
            "a worker process died, out of memory perhaps; finished images are kept: start again with fewer workers"
        )


def _worker_main(task: Task, device: str | None, torch_threads: int, threads: int, parent: Connection) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it, too, and terminates this process
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # files that are being written are finished
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(torch_threads)
    sending = threading.Lock()

    def send(message: Any) -> None:
        with sending, contextlib.suppress(BrokenPipeError):
            parent.send(message)

    def items() -> Iterator[Any]:
        while True:
            send(None)
            item = parent.recv()
            if item is None:
                return
            yield item

    message: Any = EngineStats()
    with contextlib.suppress(KeyboardInterrupt, EOFError):  # SIGTERM may come while an error is handled, too
        try:
            with task.load(device) as model, DecodePool(threads, handler=task.decoder) as decoder:
                send("loaded")
                storage = Storage(parent.recv())
                message = process_items(task, model, decoder, items(), storage, lambda *r: send(r), threads=threads)
        except EOFError:
            raise
        except Exception as error:
            message = portable_error(error)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent ends it once it has the message
    send(message)


def _exit_with_parent() -> None:
    """A parent that was killed cannot end its children, and its lock on the folder is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
