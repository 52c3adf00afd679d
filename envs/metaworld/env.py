"""Meta-World's tasks in batches: groups of worlds by scene, one batch to the agent."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from metarl.devices import num_cpus
from metarl.envs.metaworld.episode_starts import EpisodeStart, episode_starts
from metarl.envs.metaworld.family_options import FamilyOptions
from metarl.envs.metaworld.group import SceneGroup, StepArrays
from metarl.envs.metaworld.group_store import GroupKey, GroupStore
from metarl.envs.metaworld.scoring import OUTCOMES
from metarl.envs.metaworld.tasks import definition
from metarl.envs.physics import Physics, PhysicsEnv, RawStep, Selection
from metarl.envs.physics.world import World
from metarl.tasks import Tasks
from metarl.threads import by_turns
from metarl.vector_env import TaskFamily


class MetaWorldEnv(PhysicsEnv):
    """Steps a `MetaWorld` distribution on either physics engine (`PhysicsEnv` says how).

    Environments whose tasks share a scene are stepped together. One scene has all CPU threads; several are simulated
    side by side, each on its share of the threads. On a GPU the scenes are part of one graph, one after the other; with
    `graph=False`, every scene has a graph and a stream of its own.

    `info`, each `[B]`: `success` and the package's other numbers (`near_object`, `grasp_success`, `grasp_reward`,
    `in_place_reward`, `obj_to_target` in metres, `unscaled_reward`), beside what every environment reports.

    A task is where things are placed: `set_tasks` puts every environment at the start of its task at once, and the time
    in the episode goes on. Resets depend on the task alone, not on any seed. State: the engines', `memory` (what
    rewards remember), `starting` (whether the next step is an episode's first) and `frame` (what was last observed);
    scenes differ in the number of joints, so rows are padded with zeros.

    >>> env = metarl.make("ML10-v3").make_env(num_tasks=20, envs_per_task=10, backend="mujoco")
    """

    outside_steps = PhysicsEnv.outside_steps | {"_store", "_simulators", "_seconds", "_streams"}

    def __init__(
        self,
        distribution: TaskFamily,
        options: FamilyOptions,
        num_tasks: int,
        envs_per_task: int,
        *,
        backend: str,
        device: torch.device,
        render_mode: str | None = None,
    ):
        super().__init__(
            distribution, num_tasks, envs_per_task, backend=backend, device=device, render_mode=render_mode
        )
        self._options = options
        self.terminate_on_success = options.terminate_on_success
        self._store = GroupStore(backend, device)
        self._groups: list[SceneGroup] = []
        self._frame = torch.zeros(self.num_envs, 18, device=device)
        self._one_hot = torch.zeros(self.num_envs, 0, device=device)
        self._threads = num_cpus() if backend == "mujoco" else 1  # Warp launches from one thread
        self._simulators = ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,))
        self._streams: list[torch.cuda.Stream] = []

    @property
    def engines(self) -> Sequence[Physics]:
        """One engine per scene of the present tasks."""
        return [group.physics for group in self._groups]

    def world(self, index: int) -> World:
        (group,) = (group for group in self._groups if index in group.rows.tolist())
        return group.world(group.rows.tolist().index(index))

    def close_extras(self, **kwargs: object) -> None:
        self._simulators.shutdown()
        self._store.close()

    def _set_tasks(self, tasks: Tasks) -> None:
        indices = tasks.parameters["task_index"].tolist()
        vectors = tasks.parameters["rand_vec"].cpu().double()
        tasks_by_scene: dict[str, dict[str, list[int]]] = {}
        for number, index in enumerate(indices):
            name = self._options.names[index]
            tasks_by_scene.setdefault(definition(name).scene, {}).setdefault(name, []).append(number)
        threads = max(1, self._threads // len(tasks_by_scene))
        keys = [
            GroupKey(file, self.envs_per_task * sum(map(len, numbers.values())), threads)
            for file, numbers in tasks_by_scene.items()
        ]
        self._groups = self._store.take(keys)
        self._seconds = [0.0] * len(self._groups)
        self._arrays = StepArrays.zeros(self.num_envs, like=self._groups[0].physics.qpos)
        first = 0
        for group, key, numbers in zip(self._groups, keys, tasks_by_scene.values(), strict=True):
            members = [(definition(name), self._starts(name, vectors[chosen])) for name, chosen in numbers.items()]
            rows = [self._rows_of(number) for chosen in numbers.values() for number in chosen]
            worlds = slice(first, first := first + key.num_worlds)
            group.set_tasks(members, torch.cat(rows), self._arrays[worlds], self._options.reward)
        self._rows = torch.cat([group.rows for group in self._groups])
        self._order = self._rows.argsort()
        self._first_frame = self._in_order(torch.cat([group.first_observation for group in self._groups]))
        self._goal = self._in_order(torch.cat([group.goals for group in self._groups]))
        if not self._options.goal_observable:
            self._goal.zero_()
        if self._options.one_hot:
            index = tasks.parameters["task_index"].repeat_interleave(self.envs_per_task)
            self._one_hot = torch.nn.functional.one_hot(index, len(self._options.names)).float()
        self._frame = self._first_frame.clone()
        self._first_observations = self._observations = self._observe(self._frame, self._frame)

    def _starts(self, name: str, vectors: Float[Tensor, "M V"]) -> EpisodeStart:
        """The starts of tasks called `name`, one row an environment."""
        starts = episode_starts(name, vectors[:, : len(definition(name).random_low)])
        return starts.rows(torch.arange(len(vectors)).repeat_interleave(self.envs_per_task))

    def _rows_of(self, task: int) -> Tensor:
        """The rows of the batch that run the task of that number."""
        return task * self.envs_per_task + torch.arange(self.envs_per_task)

    def _advance(self, actions: Float[Tensor, "B 4"]) -> RawStep:
        outcomes, frame, fault = self._simulate(actions.clamp(-1, 1))
        observations = self._observe(frame, self._frame)
        self._frame = frame
        numbers = dict(zip(OUTCOMES, outcomes.unbind(1), strict=True))
        reward, success = numbers.pop("reward"), numbers.pop("success") > 0
        terminated = success if self.terminate_on_success else torch.zeros_like(success)
        info = {"success": success, "unscaled_reward": reward, **numbers}
        return RawStep(observations, reward, terminated, fault, info)

    def _simulate(
        self, actions: Float[Tensor, "B 4"]
    ) -> tuple[Float[Tensor, "B 7"], Float[Tensor, "B 18"], Bool[Tensor, "B"]]:
        """One step of every group: outcomes, observed frames, faults."""
        self._arrays.action.copy_(actions[self._rows])
        if self.device.type == "cuda":
            self._step_on_gpu()
        else:
            self._step_on_threads()
        faults = torch.cat([group.physics.faults for group in self._groups])[self._order]
        return self._in_order(self._arrays.outcomes), self._in_order(self._arrays.observed), faults

    def _step_on_threads(self) -> None:
        """Threads simulate one group after the other, the slowest first.

        What comes before and after is done for all groups at once. It is small, and between two simulations none of it
        would be in the core's caches.
        """

        def simulate(number: int) -> None:
            begin = time.perf_counter()
            self._groups[number].simulate()
            self._seconds[number] = time.perf_counter() - begin

        for group in self._groups:
            group.command()
        order = sorted(range(len(self._groups)), key=lambda number: -self._seconds[number])
        by_turns(simulate, order, self._simulators, min(self._threads, len(order)) - 1)
        for group in self._groups:
            group.score()

    def _step_on_gpu(self) -> None:
        """One group after the other in a graph (`capture_with_warp` says why), otherwise on a stream each."""
        if len(self._groups) > 1 and not torch.cuda.is_current_stream_capturing():
            self._step_on_streams()
            return
        for group in self._groups:
            group.command()
            group.simulate()
            group.score()

    def _step_on_streams(self) -> None:
        """Each stream starts when the present one gets here, and the present one goes on when all have ended."""
        present = torch.cuda.current_stream(self.device)
        while len(self._streams) < len(self._groups):
            self._streams.append(torch.cuda.Stream(self.device))
        streams = self._streams[: len(self._groups)]
        for group, stream in zip(self._groups, streams, strict=True):
            stream.wait_stream(present)
            with torch.cuda.stream(stream):
                group.command()
                group.simulate()
                group.score()
        for stream in streams:
            present.wait_stream(stream)

    def _start_episodes(self, chosen: Selection) -> Float[Tensor, "R D"]:
        for group in self._groups:
            group.restart(chosen.mask[group.rows])
        chosen.put(self._frame, chosen.take(self._first_frame))
        return chosen.take(self._first_observations)

    def _read_state(self) -> dict[str, Tensor]:
        parts = [(group, group.get_state()) for group in self._groups]
        state = {}
        for name in dict.fromkeys(name for _, part in parts for name in part):
            width = max(part[name].shape[1] for _, part in parts if name in part)
            if not width:
                continue  # tasks that remember nothing
            state[name] = parts[0][1]["qpos"].new_zeros(self.num_envs, width)
            for group, part in parts:
                if name in part:
                    state[name][group.rows, : part[name].shape[1]] = part[name]
        return state | {"frame": self._frame.clone()}

    def _write_state(self, state: Mapping[str, Tensor]) -> Float[Tensor, "B D"]:
        for group in self._groups:
            group.set_state({name: value[group.rows] for name, value in state.items()})
        if "frame" not in state:
            return self._observations
        self._frame = state["frame"].to(self._frame).clone()
        return self._observe(self._frame, self._frame)

    def _pictures(self) -> Sequence[UInt8[np.ndarray, "H W 3"]]:
        pictures: dict[int, UInt8[np.ndarray, "H W 3"]] = {}
        for group in self._groups:
            pictures |= zip(group.rows.tolist(), group.pictures(), strict=True)
        return [pictures[row] for row in range(self.num_envs)]

    def _observe(self, now: Float[Tensor, "B 18"], before: Float[Tensor, "B 18"]) -> Float[Tensor, "B D"]:
        return torch.cat([now, before, self._goal, self._one_hot], 1)

    def _in_order(self, worlds: Float[Tensor, "B _"]) -> Float[Tensor, "B _"]:
        """A copy of what the groups' worlds have, one group after the other, in the order of the batch; float32."""
        return worlds[self._order].float()
