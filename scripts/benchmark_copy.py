"""`metarl benchmark copy`: trains a Neural Turing Machine and an LSTM to copy sequences, and measures lost bits."""

import os
import platform
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from metarl.experiment.progress import Progress
from metarl.fewshot.copy_task import CopyConfig, run_copy_task
from metarl.scripts.benchmark import Output


@dataclass
class Arguments(Output):
    """Measures the cost of a copied vector of 8 bits by sequence length, for trained and longer lengths."""

    copy: Annotated[CopyConfig, tyro.conf.arg(name="")] = field(default_factory=CopyConfig)


def run(arguments: Arguments) -> dict[str, Any]:
    """Trains, prints a table and returns the results."""
    updates = arguments.copy.updates
    with Progress("copy") as bar:
        results = run_copy_task(
            arguments.copy,
            lambda done, name, step, bits: bar.update(done, f"{name}: step {step}/{updates}  {bits:.3f} bits"),
        )
    table = Table(title="Bits lost per vector of 8 bits")
    table.add_column("length", justify="right")
    for name, result in results.items():
        table.add_column(f"{name}, {result['parameters']:,} parameters", justify="right")
    for length in next(iter(results.values()))["bits_per_vector"]:
        table.add_row(str(length), *(f"{result['bits_per_vector'][length]:.4f}" for result in results.values()))
    Console().print(table)
    return {
        "config": asdict(arguments.copy),
        "networks": results,
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "processor": platform.processor()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
