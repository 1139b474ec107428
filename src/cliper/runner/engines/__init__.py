"""What processes the images of a run: threads of this process, processes of this machine, or Ray."""

from cliper.runner.engines.processes import processes_engine
from cliper.runner.engines.ray import ray_engine
from cliper.runner.engines.threads import threads_engine

__all__ = ["processes_engine", "ray_engine", "threads_engine"]
