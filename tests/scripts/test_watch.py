"""The viewer's session: its task is the environment's, its episodes are the agent's, and nothing else changes them."""

import contextlib
import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path

import mujoco
import pytest
from watch_helpers import Homing, free_port

import metarl
from metarl.agents.random import RandomAgent, RandomConfig
from metarl.scripts.cli import main
from metarl.scripts.watch_page import size_of_robot
from metarl.scripts.watch_session import Interrupted, Moment, WatchSession


@pytest.fixture
def session() -> Iterator[WatchSession]:
    family = metarl.make("PointNavigation-v0", horizon=8)
    agent = Homing(RandomConfig(), metarl.EnvSpec.of(family))
    with contextlib.closing(WatchSession(agent, family, family.task(goal=[0.3, 0.0]))) as session:
        yield session


def test_an_episode_is_shown_step_by_step(session: WatchSession):
    shown: list[Moment] = []
    outcome = session.play(shown.append)
    assert [moment.step for moment in shown] == list(range(8))
    assert (outcome.steps, outcome.success) == (8, None)
    assert outcome.episode_return == pytest.approx(8 * -(0.3**2))
    assert shown[-1].episode_return == pytest.approx(7 * -(0.3**2))


def test_adaptation_changes_the_policy_and_reset_forgets_it(session: WatchSession):
    blank = session.play(lambda _: None).episode_return
    session.adapt(2)
    session.adapt(1)
    assert session.episodes_used == 3
    adapted = session.play(lambda _: None)
    assert (adapted.episode_return, adapted.steps) == (pytest.approx(-0.04 - 0.01, abs=1e-6), 3), "it reaches the goal"
    session.reset()
    assert session.play(lambda _: None).episode_return == blank
    assert session.episodes_used == 0


def test_a_knob_turns_the_task_of_the_environment_and_forgets_the_old_one(session: WatchSession):
    first, second = session.knobs()
    assert [knob.label for knob in (first, second)] == ["goal[0]", "goal[1]"]
    assert (first.low, first.high, first.whole) == (-0.5, 0.5, False)
    session.adapt(1)
    session.turn("goal", second.index, -0.4)
    assert session.env.tasks.parameters["goal"][0].tolist() == pytest.approx([0.3, -0.4])
    assert session.episodes_used == 0
    assert session.play(lambda _: None).episode_return == pytest.approx(8 * -(0.5**2), rel=1e-5)


def test_a_task_outside_the_range_is_refused_and_the_old_one_stays(session: WatchSession):
    with pytest.raises(metarl.UsageError, match=r"'goal': .* out of range, want shape \(2,\) in \[-0.5") as error:
        session.turn("goal", (0,), 0.7)
    assert "\n" not in str(error.value)
    assert session.env.tasks.parameters["goal"][0].tolist() == pytest.approx([0.3, 0.0])


def test_another_task_is_a_test_task_and_differs_each_time(session: WatchSession):
    seen = set()
    for _ in range(3):
        session.draw_task()
        seen.add(tuple(session.values["goal"]))
    assert len(seen) == 3


def test_what_is_shown_may_end_the_episode(session: WatchSession):
    def stop(moment: Moment) -> None:
        if moment.step == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        session.play(stop)
    assert session.play(lambda _: None).steps == 8


def test_the_knobs_of_meta_world_are_those_of_the_present_task():
    family = metarl.make("ML-custom", train=["reach-v3", "door-open-v3"], test=["push-v3"], horizon=5)
    agent = RandomAgent(RandomConfig(), metarl.EnvSpec.of(family))
    with contextlib.closing(WatchSession(agent, family, family.sample(1, split="train", seed=0))) as session:
        for index, moving in ((0, 5), (1, 2)):  # reach: a puck on the table and a goal in space; a door on the table
            session.turn("task_index", (), index)
            choice, *numbers = session.knobs()
            assert (choice.label, choice.value, choice.high, choice.whole) == ("task_index", index, 2, True)
            assert len(numbers) == moving
            for knob in numbers:
                session.turn(knob.parameter, knob.index, knob.high)
            assert session.env.tasks.parameters["task_index"].tolist() == [index]
        assert session.env.world(0).mark is not None


def test_a_family_that_cannot_be_shown_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    config = metarl.TrainConfig("random", "Bandit-v0", iterations=1, output=tmp_path / "run")
    metarl.train(config, progress=False)
    capsys.readouterr()
    assert main(["watch", str(tmp_path / "run"), "--port", str(free_port())]) == 2
    assert "Bandit-v0 under backend 'torch' cannot be rendered" in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("watch") / "run"
    config = metarl.TrainConfig("random", "PointNavigation-v0", {"horizon": 8}, iterations=1, output=output)
    return metarl.train(config, progress=False)


def test_mistakes_are_one_line(run: Path, capsys: pytest.CaptureFixture):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, message in (
            (["--port", str(port)], f"port {port} of 127.0.0.1 is not free"),
            (["--port", "99999"], "port 99999 of 127.0.0.1 is not free"),
            (["--task", '{"goal": [2, 0]}', "--port", str(free_port())], "'goal': 2.0 is out of range"),
            (["--episodes", "0"], "--episodes must be at least 1"),
        ):
            assert main(["watch", str(run), *arguments]) == 2
            error = capsys.readouterr().err
            assert message in error
            assert error.count("\n") == 1


@pytest.mark.skipif(importlib.util.find_spec("viser") is not None, reason="viser is installed")
def test_without_viser_the_command_says_what_to_install(run: Path, capsys: pytest.CaptureFixture):
    assert main(["watch", str(run), "--port", str(free_port())]) == 2
    assert "pip install 'metarl-kit[viewer]'" in capsys.readouterr().err


def test_the_camera_stands_as_far_away_as_the_robot_is_large():
    """A sphere of 0.1 m whose centre moves 1 m from the axis of a rod; the floor of 40 m is no part of it."""
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><geom type="plane" size="40 40 1"/><geom size="9" pos="0 0 -20"/>
        <body><joint axis="0 1 0"/><geom size=".1"/><geom size=".1" pos="1 0 0"/></body></worldbody></mujoco>"""
    )
    assert size_of_robot(model) == pytest.approx((1.2**2 + 2 * 0.2**2) ** 0.5)
    empty = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    assert size_of_robot(empty) == empty.stat.extent
