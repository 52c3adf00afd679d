"""What each process of `test_several_processes` runs: short trainings, into folders named TAG-NAME."""

import sys
from pathlib import Path

import metarl

POINT = {"env": "PointNavigation-v0", "env_options": {"horizon": 10}}
SMALL = {"num_tasks": 6, "envs_per_task": 4, "hidden": (16, 16)}
# Beyond the rank of so few samples' curvature, conjugate gradient would magnify rounding.
TRPO = {**SMALL, "trust_region": {"cg_iterations": 5}}
PEARL = {
    "num_tasks": 6,
    "train_tasks": 10,
    "meta_batch": 6,
    "updates": 5,
    "batch_size": 16,
    "context_size": 8,
    "hidden": (16, 16),
    "encoder_hidden": (16,),
}
RUNS = {
    "maml-trpo": {"agent": "maml", "agent_options": TRPO, **POINT},
    "maml-trpo-exploring": {"agent": "maml", "agent_options": {**TRPO, "exploration": True}, **POINT},
    "maml-trpo-step-sizes": {"agent": "maml", "agent_options": {**TRPO, "learn_inner_lr": True}, **POINT},
    "maml-ppo": {"agent": "maml", "agent_options": {**SMALL, "outer": "ppo"}, **POINT},
    "promp": {"agent": "maml", "agent_options": {**SMALL, "outer": "promp"}, **POINT},
    "reptile": {"agent": "reptile", "agent_options": {**SMALL, "outer": "sgd", "outer_lr": 1.0}, **POINT},
    "rl2": {"agent": "rl2", "agent_options": {"num_tasks": 12, "envs_per_task": 2, "hidden": 16}, **POINT},
    # Fewer environments of a rank than minibatches, so that it has none in some.
    "rl2-few": {
        "agent": "rl2",
        "agent_options": {"num_tasks": 6, "hidden": 16},
        "env": "Bandit-v0",
        "env_options": {"arms": 3, "pulls": 5},
    },
    "varibad": {
        "agent": "varibad",
        "agent_options": {"num_tasks": 12, "belief_batch": 7, "hidden": 16, "buffer": 30},
        **POINT,
    },
    "multitask": {"agent": "multitask", "agent_options": {"num_tasks": 12, "envs_per_task": 2}, **POINT},
    "pearl": {"agent": "pearl", "agent_options": PEARL, **POINT},
    # Episodes of its environments end at different times.
    "pearl-ending-early": {"agent": "pearl", "agent_options": PEARL, "env": "HopperRandParams-v0"},
}


def main(folder: str, tag: str) -> None:
    for name, options in RUNS.items():
        config = metarl.TrainConfig(iterations=5, checkpoint_every=5, output=Path(folder) / f"{tag}-{name}", **options)
        metarl.train(config, progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
