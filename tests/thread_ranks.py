"""Ranks that are threads of one process, so that what they add up needs no launcher."""

import threading

from metarl.parallel import Ranks


class ThreadRanks(Ranks):
    """Ranks that are threads of this process: a sum waits for all of them."""

    def __init__(self, world_size, rank, meeting, places):
        super().__init__(world_size, rank)
        object.__setattr__(self, "meeting", meeting)
        object.__setattr__(self, "places", places)

    def sum(self, tensor):
        self.places[self.rank] = tensor
        self.meeting.wait()
        total = sum(self.places)
        self.meeting.wait()
        return total


def on_ranks(world_size, work):
    """What `work(ranks)` returns on each of some ranks."""
    meeting, places, found = threading.Barrier(world_size), [None] * world_size, [None] * world_size

    def run(rank):
        found[rank] = work(ThreadRanks(world_size, rank, meeting, places))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found
