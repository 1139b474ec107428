"""Several processes of this machine, each with a model on a GPU of its own or with a share of the processors.

The parent lists the images, hands them out one by one, and writes the manifest.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from cliper.errors import CliperError, InputError, ResourceError
from cliper.runner.engines.threads import open_decoder, process_items
from cliper.runner.manifest import Record
from cliper.runner.run import EngineStats, Run
from cliper.runner.storage import Storage
from cliper.runner.task import Task

__all__ = ["processes_engine"]


@contextlib.contextmanager
def processes_engine(
    task: Task, *, workers: int, threads: int, device: str | None
) -> Iterator[Callable[[Run], EngineStats]]:
    """Start processes and load a model in each; without a device, or on ``"cuda"``, they take GPUs in turn.

    Raises:
        CliperError: a model cannot be loaded.
        ResourceError: a process died.
    """
    import torch

    gpus = torch.cuda.device_count() if device in (None, "cuda") and torch.cuda.is_available() else 0
    share = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")  # a forked child can use neither CUDA nor PyTorch's threads
    processes: list[Any] = []
    connections: list[Connection] = []
    try:
        for number in range(workers):
            here, there = context.Pipe()
            arguments = (task, f"cuda:{number % gpus}" if gpus else None, share, threads, there)
            processes.append(context.Process(target=_worker_main, args=arguments, daemon=True))
            connections.append(here)
            processes[-1].start()
            there.close()
        for connection in connections:
            _receive(connection)  # its model is loaded
        yield lambda run: _distribute(run, processes, connections)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _distribute(run: Run, processes: list[Any], connections: list[Connection]) -> EngineStats:
    pending, stats = run.pending(), EngineStats()
    for connection in connections:
        connection.send(run.storage.uri)
    running = set(connections)
    failure: InputError | None = None
    try:
        while running:
            for connection in _ready(running):
                message = _receive(connection)
                if message is None:  # it asks for an image
                    try:
                        item = next(pending, None)
                    except InputError as error:  # the source ends in the middle: what was handed out is finished
                        failure, item = error, None
                    connection.send(item)
                elif isinstance(message, EngineStats):
                    stats += message
                    running.remove(connection)
                else:
                    run.add(*message)
    except BaseException:
        for process in processes:
            process.terminate()
        _add_finished(run, running)
        raise
    if failure is not None:
        raise failure
    return stats


def _ready(connections: set[Connection]) -> list[Connection]:
    return [one for one in multiprocessing.connection.wait(list(connections)) if isinstance(one, Connection)]


def _receive(connection: Connection) -> Any:
    try:
        message = connection.recv()
    except (EOFError, OSError):
        raise ResourceError(
            "a worker process died, out of memory perhaps; finished images are kept: start again with fewer workers"
        ) from None
    if isinstance(message, BaseException):
        raise message
    return message


def _add_finished(run: Run, running: set[Connection]) -> None:
    """Wait for the files that the processes are writing."""
    while running:
        for connection in _ready(running):
            try:
                message = connection.recv()
            except (EOFError, OSError):
                message = EngineStats()
            if isinstance(message, tuple):
                with contextlib.suppress(CliperError):
                    run.add(*message)
            elif isinstance(message, EngineStats | BaseException):
                running.remove(connection)
            else:
                connection.send(None)


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

    def add(number: int, record: Record) -> None:
        send((number, record))

    message: Any
    try:
        with task.load(device) as model, open_decoder(task, threads) as decoder:
            send("loaded")
            storage = Storage(parent.recv())
            message = process_items(task, model, decoder, items(), storage, add, threads=threads)
    except (KeyboardInterrupt, EOFError):
        message = EngineStats()
    except CliperError as error:
        message = type(error)(str(error))
    except Exception as error:  # a defect; not every exception can be pickled
        message = RuntimeError(f"{type(error).__name__} in a worker: {error}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent ends it once it has the message
    send(message)


def _exit_with_parent() -> None:
    """A parent that was killed cannot end its children, and its lock on the folder is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
