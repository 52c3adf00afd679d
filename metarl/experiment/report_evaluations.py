"""What the evaluation of a run was made of: only evaluations that were made alike are put together."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from metarl.experiment.fingerprint import differences
from metarl.experiment.options import option_differences
from metarl.parsing import printable


def unlike_training(entries: Mapping[str, Any], evaluation: Mapping[str, Any]) -> str:
    """In words, what an agent's evaluation has instead of what config.yaml, `entries`, trained it on; empty if nothing.

    Files of earlier versions do not say what they have.

    >>> from metarl.experiment.report_evaluations import unlike_training
    >>> entries = {"env_options": {"horizon": 10}, "fingerprint": {"id": "PointNavigation-v0", "horizon": 10}}
    >>> unlike_training(entries, {"family": "PointNavigation-v0", "family_options": {}, "horizon": 20})
    'horizon 20 instead of 10'
    """
    trained = entries.get("fingerprint", {})
    family, horizon = evaluation.get("family"), evaluation.get("horizon")
    words = []
    if family is not None and "id" in trained and family != trained["id"]:
        words.append(f"{family} instead of {trained['id']}")
    elif family is not None and "env" not in entries.get("unnamed", ()):
        words += _other_options(entries.get("env_options"), evaluation.get("family_options"))
    if horizon is not None and "horizon" in trained and horizon != trained["horizon"]:
        words.append(f"horizon {horizon} instead of {trained['horizon']}")
    drawn_from = evaluation.get("drawn_from")
    if drawn_from not in (None, "test"):
        words.append(
            "tasks outside the training range" if drawn_from == "outside" else f"tasks of the {drawn_from} split"
        )
    if evaluation.get("protocol", "per-task") != "per-task":
        words.append(f"protocol {evaluation['protocol']}")
    return printable(", ".join(words))


def out_of_date(rows: Sequence[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> str | None:
    """Words for an evaluation of an agent that has been trained on since, or None; `rows` are the metrics of its run.

    >>> from metarl.experiment.report_evaluations import out_of_date
    >>> out_of_date([{"iteration": 1}, {"iteration": 2}], {"iteration": 1})
    'evaluated after iteration 1 of 2'
    """
    then, now = evaluation.get("iteration"), rows[-1]["iteration"]
    return None if then is None or then >= now else f"evaluated after iteration {then} of {now}"


def changed_families(families: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each run whose family had the name and the options of another run's and was another one.

    `families` maps the paths of runs to their config.yaml: the code behind a name may have changed between two of them.

    >>> from metarl.experiment.report_evaluations import changed_families
    >>> runs = {"a": {"env": "m:f", "fingerprint": {"horizon": 5}}, "b": {"env": "m:f", "fingerprint": {"horizon": 9}}}
    >>> changed_families(runs)
    ['b was trained on another m:f than a: horizon 9 instead of 5']
    """
    first: dict[str, tuple[str, Mapping[str, Any]]] = {}
    found = []
    for path, entries in families.items():
        if "env" in entries.get("unnamed", ()) or "env" not in entries:
            continue
        now = entries.get("fingerprint", {})
        name = json.dumps([entries["env"], entries.get("env_options")], sort_keys=True)
        other, then = first.setdefault(name, (path, now))
        try:
            words = list(differences(then, now).values())
        except (TypeError, ValueError, AttributeError, KeyError):  # what no run has written
            words = ["its fingerprint is damaged"]
        if words:
            env = printable(str(entries["env"]))
            found.append(printable(f"{path} was trained on another {env} than {other}: {', '.join(words)}", most=1000))
    return found


def repeated_seeds(label: str, seeds: Mapping[str, Any]) -> list[str]:
    """A line for each seed that several of the runs of `label` have; `seeds` maps the paths of runs to seeds.

    >>> from metarl.experiment.report_evaluations import repeated_seeds
    >>> repeated_seeds("maml", {"runs/a": 0, "runs/b": 1, "runs/copy": 0})
    ['maml: runs/a, runs/copy have the same seed 0, so they are not independent runs']
    """
    found: dict[str, list[str]] = {}
    for path, seed in seeds.items():
        if seed is not None:
            found.setdefault(str(seed), []).append(path)
    return [
        printable(f"{label}: {', '.join(paths)} have the same seed {seed}, so they are not independent runs", most=1000)
        for seed, paths in found.items()
        if len(paths) > 1
    ]


def _other_options(trained: Any, evaluated: Any) -> list[str]:
    """What the options of the family are instead; the horizon, which has words of its own, left out."""
    if not isinstance(trained, Mapping) or not isinstance(evaluated, Mapping):
        return []
    then, now = ({n: v for n, v in options.items() if n != "horizon"} for options in (trained, evaluated))
    return list(option_differences(then, now).values())
