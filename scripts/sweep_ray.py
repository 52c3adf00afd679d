"""The trials of a sweep on Ray Tune: on this machine, or on a cluster whose machines share the sweep's folder."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune

from metarl.scripts.sweep_trial import TrialRequest, run_trial

OBJECT_STORE = 80 * 2**20
"""Bytes for objects that Ray's processes share: trials pass nothing but their names."""


def run_on_ray(
    requests: Sequence[TrialRequest], *, retries: int, address: str | None, cpus: float, gpus: float, output: Path
) -> None:
    """Runs all trials, as many at once as there are processors for; one that dies is started again `retries` times.

    Without `address`, a cluster of this machine alone is started and ended.
    """
    options: dict[str, Any] = {"address": address} if address else {"object_store_memory": OBJECT_STORE}
    if not address:
        options["include_dashboard"] = False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a user's machine tells nobody of its trials
    # A trial's process works in another folder: MODULE:NAME is looked for where the sweep was started.
    paths = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"env_vars": {"PYTHONPATH": paths}}
    ray.init(logging_level=logging.WARNING, log_to_driver=False, runtime_env=environment, **options)
    try:
        space = {"request": tune.grid_search([dataclasses.asdict(request) for request in requests])}
        tuner = tune.Tuner(
            tune.with_resources(_trial, {"cpu": cpus, "gpu": gpus}),
            param_space=space,
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(output.absolute()),
                failure_config=tune.FailureConfig(max_failures=retries),
                verbose=0,
            ),
        )
        tuner.fit()
    finally:
        ray.shutdown()


def _trial(config: dict[str, Any]) -> dict[str, Any]:
    request = TrialRequest(**config["request"])
    run_trial(request)
    return {"attempts": request.status["attempts"]}
