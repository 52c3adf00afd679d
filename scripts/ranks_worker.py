"""What `benchmark_ranks` runs in each process: iterations of training on request, alone or as one of several ranks.

The first line of its input names agent, family and their options; each later one asks for an iteration. An answer is a
line with the seconds it took, the steps of this process, and the number, bytes and seconds of the sums over ranks.
"""

import json
import sys
import time
from dataclasses import dataclass, field

from torch import Tensor

import metarl
from metarl.parallel import Ranks, join_ranks


@dataclass
class Traffic:
    """What ranks have told each other.

    >>> from metarl.scripts.ranks_worker import Traffic
    >>> Traffic().sums
    0
    """

    sums: int = 0
    bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class CountingRanks(Ranks):
    """Ranks that count their sums.

    >>> from metarl.scripts.ranks_worker import CountingRanks
    >>> CountingRanks().traffic.bytes
    0
    """

    traffic: Traffic = field(default_factory=Traffic)

    def sum(self, tensor: Tensor) -> Tensor:
        began = time.perf_counter()
        total = super().sum(tensor)
        if self.world_size > 1:
            self.traffic.sums += 1
            self.traffic.bytes += tensor.numel() * tensor.element_size()
            self.traffic.seconds += time.perf_counter() - began
        return total


def main() -> None:
    """Answers line by line until the input ends."""
    joined = join_ranks()
    ranks = CountingRanks(joined.world_size, joined.rank, joined.local_rank)
    experiment = metarl.TrainConfig(**json.loads(sys.stdin.readline())).resolve()
    experiment.share_among(ranks)
    agent = experiment.make()
    env = experiment.make_env()
    source = agent.task_source(experiment.distribution, seed=0)
    share = env.num_tasks
    for seed, _ in enumerate(sys.stdin):
        tasks = source.draw(share * ranks.world_size, seed=seed)
        env.set_tasks(tasks[share * ranks.rank : share * (ranks.rank + 1)])
        before, began = dict(vars(ranks.traffic)), time.perf_counter()
        steps = int(agent.improve(env, seed=seed)["env_steps"])
        answer = {"seconds": time.perf_counter() - began, "env_steps": steps}
        traffic = {name: value - before[name] for name, value in vars(ranks.traffic).items()}
        print(json.dumps(answer | {"traffic": traffic}), flush=True)


if __name__ == "__main__":
    main()
