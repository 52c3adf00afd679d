"""`metarl benchmark rollout` measures what it says; how fast it finds things is nobody's business here."""

import metarl
from metarl.scripts.benchmark_rollout import benchmark_rollout
from metarl.scripts.contenders import SingleTasksContender, peers_of


def test_a_step_is_split_into_parts_that_add_up() -> None:
    (row,) = benchmark_rollout("HalfCheetahVel-v0", num_envs=(4,), seconds=0.05, repeats=2, peers=False)["rows"]
    parts = row["microseconds"]
    assert row["num_envs"] == 4
    assert len(row["runs"]["metarl"]) == 2
    assert row["steps_per_second"]["metarl"] > 0
    assert abs(parts["physics"] + parts["observation_and_reward"] - parts["step"]) < 1e-6
    assert 0 < parts["physics_share"] < 1
    assert row["ratios"] == {}


def test_a_set_of_tasks_races_its_tasks_alone() -> None:
    family = metarl.make("ML10-v3")
    assert set(peers_of(metarl.make("PointNavigation-v0"), "torch", "cpu", 4)) == set()
    peers = peers_of(family, "mujoco", "cpu", 2)
    for peer in peers.values():
        peer.close()
    assert set(peers) == {"single tasks"}
    pair = SingleTasksContender(["reach-v3", "door-open-v3"], "mujoco", "cpu", 2)
    assert pair.run(0.02) > 0
    pair.close()


def test_gymnasiums_vector_steps_the_same_environments_in_as_many_processes() -> None:
    for id, backend in (("CartPoleParams-v0", "gymnasium"), ("HalfCheetahVel-v0", "gymnasium")):
        peers = peers_of(metarl.make(id), backend, "cpu", 2)
        assert set(peers) == {"gymnasium"}
        assert peers["gymnasium"].run(0.02) > 0
        peers["gymnasium"].close()


def test_scenes_that_run_side_by_side_have_no_physics_of_their_own() -> None:
    family = metarl.make("MT10-v3")
    (row,) = benchmark_rollout(family.id, num_envs=(10,), seconds=0.05, repeats=1, peers=False)["rows"]
    assert "physics" not in row["microseconds"]
    assert row["microseconds"]["step"] > 0
