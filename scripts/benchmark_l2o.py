"""`metarl benchmark l2o`: trains an LSTM optimizer on quadratics and compares it with hand-designed optimizers."""

import os
import platform
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

from metarl.experiment.progress import Progress
from metarl.fewshot.quadratics import QuadraticsConfig, run_quadratics
from metarl.scripts.benchmark import Output


@dataclass
class Arguments(Output):
    """Compares the loss on unseen quadratics with that of Adam, RMSprop and SGD at their best of ten rates."""

    quadratics: Annotated[QuadraticsConfig, tyro.conf.arg(name="")] = field(default_factory=QuadraticsConfig)


def run(arguments: Arguments) -> dict[str, Any]:
    """Trains, prints a table and returns the results."""
    config = arguments.quadratics
    total = config.epochs
    with Progress("l2o") as bar:
        results = run_quadratics(
            config, lambda epoch, loss: bar.update(epoch / total, f"epoch {epoch}/{total}  loss {loss:.4f}")
        )
    table = Table(title=f"Loss after {config.steps} steps, {config.test_functions} unseen functions")
    for column in ("optimizer", "learning rate", "mean", "± standard error", "median"):
        table.add_column(column, justify="left" if column == "optimizer" else "right")
    for name, row in results["optimizers"].items():
        if row["final_loss"] is None:
            table.add_row(name, "learned", "diverges", "", "")
            continue
        rate = f"{row['learning_rate']:.4f}" if "learning_rate" in row else "learned"
        figures = (row[key] for key in ("final_loss", "final_loss_error", "final_loss_median"))
        table.add_row(name, rate, *(f"{figure:.4f}" for figure in figures))
    Console().print(table)
    return {
        "config": asdict(config),
        **results,
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "processor": platform.processor()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
