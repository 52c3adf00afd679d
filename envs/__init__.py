"""The built-in task distributions. `register` is what the entry-point group `metarl.plugins` calls."""


def register() -> None:
    """Registers every built-in distribution, whose ids are `metarl.envs.ids.IDS`."""
    # Imported here: the ids alone, which Gymnasium is told of, do not wait for torch.
    from metarl.envs.locomotion import FACTORIES
    from metarl.envs.metaworld.family import factories
    from metarl.registry import register_distribution

    register_distribution("Bandit-v0", "metarl.envs.native.bandit:Bandit")
    register_distribution("TabularMDP-v0", "metarl.envs.native.tabular_mdp:TabularMDP")
    register_distribution("PointNavigation-v0", "metarl.envs.native.point_navigation:PointNavigation")
    register_distribution("SparsePointNavigation-v0", "metarl.envs.native.point_navigation:SparsePointNavigation")
    register_distribution("CartPoleParams-v0", "metarl.envs.classic_control:CartPoleParams")
    register_distribution("PendulumParams-v0", "metarl.envs.classic_control:PendulumParams")
    for id, factory in (factories() | FACTORIES).items():
        register_distribution(id, factory)
