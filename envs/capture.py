"""Recording of GPU launches as a CUDA graph, which replays them all by one launch."""

import gc
from collections.abc import Callable

import torch

Work = Callable[[], None]
Capture = Callable[[Work, torch.device], Work]
"""Records the launches of a call, without running them, and returns a call that replays them on the current stream.

What the recorded launches read and write keeps its address, so the memory of all intermediate results belongs to the
graph for as long as the replaying call lives."""


def capture_torch(work: Work, device: torch.device) -> Work:
    """A `Capture` of tensor operations alone.

    >>> replay = capture_torch(lambda: total.add_(1), torch.device("cuda"))
    >>> replay()
    """
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream(device)  # torch's own choice belongs to the device of its first capture
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        work()
    return lambda: graph.replay()


def capture_with_warp(work: Work, device: torch.device) -> Work:
    """A `Capture` of tensor operations and of Warp's kernels, on one stream.

    Warp owns the capture, not torch. MuJoCo Warp's solver is a loop on the device (a conditional node). To build its
    body, Warp ends the capture of the stream and begins it again, which gives it a new number. Torch recognises its own
    captures by that number: after the first solver it would take memory for intermediate results from the common pool,
    and each replay would write into whatever has it by then. Here, all of this thread's allocations during the capture
    come from a pool of the graph's own. Child graphs are no way out: CUDA refuses them if they have conditional nodes.

    For the same reason everything is on one stream: a capture cannot be ended while other streams have joined it.

    Not yet run on a GPU. First things to look at there, should it fail: whether Warp resumes its capture on a stream of
    torch's (`wp.stream_from_torch`), whether torch serves allocations from the pool while a stream captures
    (`pool.snapshot()` shows its segments), and whether the driver has conditional nodes
    (`wp.is_conditional_graph_supported()`).
    """
    import warp as wp

    torch.cuda.synchronize(device)
    gc.collect()  # memory that is freed during the capture would become part of the graph
    with torch.cuda.device(device):
        pool, side = torch.cuda.MemPool(), torch.cuda.Stream()
        stream = wp.stream_from_torch(side)
        with torch.cuda.stream(side):
            torch.cuda.current_blas_handle()  # its workspace, which torch keeps, is not to come from the graph's pool
        with (
            torch.cuda.stream(side),
            wp.ScopedStream(stream),
            torch.cuda.use_mem_pool(pool),
            wp.ScopedCapture(stream=stream) as capture,
        ):
            work()
    graph = capture.graph
    if graph is None:
        raise RuntimeError("Warp captured no graph")

    def replay() -> None:
        wp.capture_launch(graph, stream=wp.stream_from_torch(torch.cuda.current_stream(device)))

    replay.memory = pool  # type: ignore[attr-defined]  # as long as the graph
    return replay
