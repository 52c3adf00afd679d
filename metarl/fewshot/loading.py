"""Opening the learner of a run folder."""

from pathlib import Path
from typing import Unpack

import torch

from metarl.errors import UsageError
from metarl.experiment.checkpoints import LAST
from metarl.experiment.experiment import Parts
from metarl.experiment.run_folder import load_run
from metarl.fewshot.learner import Learner
from metarl.fewshot.run import FewShotRun


def load(
    run: Path | str,
    *,
    device: torch.device | str | None = None,
    checkpoint: str | int = LAST,
    **parts: Unpack[Parts],
) -> Learner:
    """Loads the trained learner of a run folder, on the run's device or on `device`.

    It knows how to read files like those of the training (`encoder`, if its data are files) and, once
    `metarl evaluate RUN --figures` has been run, its `temperature`. If the run validates, it is in its best state.

    `checkpoint` and `parts`, such as `learner=MyLearner`, are those of `metarl.load_run`; the data are not needed.
    Raises `UsageError` as `metarl.load_run` does, and for the run of an agent.

    >>> options = {"iterations": 2}
    >>> config = metarl.fewshot.FewShotConfig("protonet", "biased", learner_options=options, episodes=10)
    >>> learner = metarl.fewshot.load(metarl.train(config, progress=False))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """
    opened = load_run(run, device=device, checkpoint=checkpoint, **parts)
    if not isinstance(opened, FewShotRun):
        raise UsageError(f"{opened.path} is no run of metarl fewshot: metarl.load_agent opens its agent")
    return opened.learner
