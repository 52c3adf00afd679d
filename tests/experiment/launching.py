"""Starting ranks as torchrun starts them, and torchrun itself."""

import os
import socket
import subprocess
import sys
from pathlib import Path

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
COMMAND = ["-m", "metarl.scripts.cli"]


def variables(world_size: int, rank: int, port: int) -> dict[str, str]:
    names = {"WORLD_SIZE": world_size, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world_size}
    return {name: str(value) for name, value in names.items()} | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start_ranks(world_size: int, command: list[str], folder: Path) -> list[subprocess.Popen]:
    """The processes of all ranks, which say what they have to say into files named after them."""
    port, ranks = free_port(), []
    for rank in range(world_size):
        with (folder / f"said-by-{rank}-of-{world_size}").open("w") as said:
            environment = {**os.environ, **variables(world_size, rank, port)}
            ranks.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said))
    return ranks


def torchrun(ranks: int, *arguments: str, folder: Path, options: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [*TORCHRUN, "--nproc-per-node", str(ranks), *options, *COMMAND, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
