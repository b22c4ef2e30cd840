"""A case becomes the peak bytes of a process that trains it for one step: on the GPU, or resident without one."""

import multiprocessing
import resource
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import torch

from pipelines.benchmark.model.cases import Case, build, runs_of


def peak_training_bytes(case: Case, clip_shape: Sequence[int]) -> int:
    """Train in a separate process; return its peak bytes (on the CPU resident bytes, including libraries).

    Raises:
        concurrent.futures.BrokenExecutor: The process died, as when memory runs out.
    """
    # Copies of a server that has loaded the libraries, but has never run anything, need no imports.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.benchmark.model.cases"])
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(_train, case, tuple(clip_shape)).result()


def _train(case: Case, clip_shape: tuple[int, ...]) -> int:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_step = runs_of(case, build(case, clip_shape).to(device), torch.randn(clip_shape, device=device))["train_step"]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # preparing the network compares bf16 with fp32
    train_step()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
