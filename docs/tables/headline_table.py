"""Ten figures for the README, each with the page that says how it was measured."""

from typing import Any

from sources import load, rows


def headline() -> str:
    """What was measured, the figure, what it stands beside, and where."""
    points, cheetah = evaluated("maml-PointNavigation-v0-seed0"), evaluated("maml-HalfCheetahDir-v0-seed0")
    reach, bandit = evaluated("rl2-ML1-reach-v3-horizon150"), evaluated("rl2-Bandit-v0-seed0")
    belief, oracle = evaluated("varibad-HalfCheetahDir-v0-seed0"), evaluated("oracle-HalfCheetahDir-v0-seed0")
    pearl, recurrent = evaluated("pearl-HalfCheetahVel-v0-300k-seed0"), evaluated("rl2-HalfCheetahVel-v0-300k-seed0")
    scratch = {row["episodes_used"]: row for row in evaluated("sb3/ppo-ML1-reach-v3")}[20]
    (protonet,) = load("results/fewshot/omniglot-protonet*.json")
    accuracies = [f"{100 * tested['accuracy']:.1f}" for tested in (protonet, *protonet["further"])]
    stepping = " and ".join(f"{row['steps_per_second']['metarl']:,.0f}" for row in fastest())
    beside = " and ".join(
        f"{row['ratios']['envpool']:.1f} × EnvPool, {row['ratios']['gymnasium']:.1f} × Gymnasium" for row in fastest()
    )
    (maml,), (peers,) = load("benchmarks/maml.json"), load("benchmarks/peers.json")
    seconds = " or ".join(f"{maml['seconds'][name]['total']:.2f}" for name in list(maml["seconds"])[:2])
    slower = ", ".join(f"{name} {value:.2f}" for name, value in peers["seconds"].items())
    agents = "AGENTS.md#what-they-reach"
    body = [
        [
            "MAML, point navigation: return after 0, 1, 2 gradient steps",
            means(points[:3], 1),
            "paper -40.4, -11.7, -3.3",
            "RESULTS.md#point-navigation",
        ],
        [
            "MAML, half cheetah in two directions: after 0, 1",
            means(cheetah, 0),
            "paper -50.7, 293.2",
            "RESULTS.md#half-cheetah-forward-and-backward",
        ],
        [
            "RL², bandits of 5 arms: total reward of 10 pulls",
            means(bandit, 2),
            "paper 6.7, random 5.0",
            "RESULTS.md#bandits",
        ],
        [
            "RL², Meta-World's reach, 50 test goals: success in episodes 1, 2",
            means(reach, 2, "success"),
            "–",
            "RESULTS.md#meta-worlds-reach",
        ],
        [
            "the same: return after 150 steps of a task",
            f"{reach[1]['return_mean']:.0f}",
            f"PPO from scratch, 3,000 steps: {scratch['return_mean']:.0f}",
            "AGENTS.md#beside-training-from-scratch",
        ],
        [
            "VariBAD, half cheetah in two directions: return of episodes 1, 2",
            means(belief, 0),
            f"told the direction: {means(oracle, 0)}",
            agents,
        ],
        [
            "PEARL, half cheetah's velocity, 300,000 steps of training: before and after 1 episode",
            means(pearl[:2], 0),
            f"RL², 300,000 steps: {means(recurrent[:2], 0)}",
            agents,
        ],
        [
            "Prototypical networks, Omniglot, % of 5 ways: 1 and 5 shots",
            ", ".join(accuracies),
            "paper 98.8, 99.7",
            "FEWSHOT.md#omniglot",
        ],
        ["Half cheetah and Meta-World's reach, steps/s on 2 cores", stepping, beside, "SPEED.md#stepping-environments"],
        [
            "An iteration of MAML, seconds, with the exact curvature or a quarter's",
            seconds,
            slower,
            "SPEED.md#one-iteration-of-maml",
        ],
    ]
    body = [[*cells, f"[how](docs/{page})"] for *cells, page in body]
    assert len(body) == 10
    return rows(["figure", "metarl", "beside it", ""], body)


def evaluated(name: str) -> list[dict[str, Any]]:
    """The stages of an evaluation."""
    (evaluation,) = load(f"results/{name}.json")
    return evaluation["summary"]


def means(stages: list[dict[str, Any]], digits: int, figure: str = "return") -> str:
    return ", ".join(f"{stage[f'{figure}_mean']:.{digits}f}" for stage in stages)


def fastest() -> list[dict[str, Any]]:
    """The half cheetah with 256 environments, and Meta-World's reach."""
    (cheetah,), (reach,) = (
        load(f"benchmarks/{name}.json") for name in ("rollout-cpu-HalfCheetahVel-v0", "metaworld-cpu-ML1-reach-v3")
    )
    return [next(row for row in cheetah["rows"] if row["num_envs"] == 256), *reach["rows"]]
