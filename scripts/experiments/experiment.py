"""What the experiments share: an agent whose training survives interruptions, and a folder with results."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import metarl
from metarl.plain_warnings import plain_warnings


def run(main: Callable[[], None]) -> None:
    """Runs a script: a mistake of its user is one line on stderr and exit code 2, as on metarl's command line."""
    try:
        with plain_warnings():
            main()
    except metarl.UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def trained_agent(config: metarl.TrainConfig) -> metarl.Agent:
    """Trains in the folder `config.output`, goes on with an interrupted training, or loads one that is complete.

    Raises `UsageError` if the folder holds another training.
    """
    folder = Path(config.output or "")
    if not folder.exists():
        return metarl.load_agent(metarl.train(config))
    found, wanted = metarl.load_run(folder).config, config.resolve().config
    if dataclasses.replace(found, output=None) != dataclasses.replace(wanted, output=None):
        raise metarl.UsageError(f"{folder} is a run with other settings: name another folder or remove it")
    return metarl.load_agent(metarl.resume(folder))


def save(options: argparse.Namespace, figures: dict[str, Any], picture: Figure | None = None) -> None:
    """Writes options and figures to `result.json`, and the picture to `result.png`, in the folder `options.output`."""
    folder: Path = options.output
    folder.mkdir(parents=True, exist_ok=True)
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    (folder / "result.json").write_text(json.dumps({"options": asked, **figures}, indent=2) + "\n")
    if picture is not None:
        picture.savefig(folder / "result.png", dpi=120)
    print(folder / "result.json")
