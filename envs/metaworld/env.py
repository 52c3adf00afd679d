"""Meta-World's tasks in batches: groups of worlds by scene, one batch to the agent."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.metaworld.camera import Camera
from metarl.envs.metaworld.group import OUTCOMES, SceneGroup
from metarl.envs.metaworld.starts import episode_starts
from metarl.envs.metaworld.tasks import definition
from metarl.envs.physics import Physics
from metarl.tasks import Tasks
from metarl.vector_env import StepResult, TaskVectorEnv, step_info

if TYPE_CHECKING:
    from metarl.envs.metaworld.family import MetaWorld


class MetaWorldEnv(TaskVectorEnv):
    """Steps a `MetaWorld` distribution on either physics engine.

    Environments whose tasks share a scene are stepped together. One scene has all CPU threads; several are simulated
    side by side, each on its share of the threads. On a GPU every scene has a stream.

    `info`, each `[B]`: `success`, the package's other numbers (`near_object`, `grasp_success`, `grasp_reward`,
    `in_place_reward`, `obj_to_target` in metres, `unscaled_reward`), and `fault`, which marks environments whose
    simulation broke down in this step: their episode ends there, truncated, with reward 0 and the observation before.

    A task is where things are placed: `set_tasks` puts every environment at the start of its task at once, and the time
    in the episode goes on. Resets depend on the task alone, not on any seed.
    """

    distribution: "MetaWorld"

    def __init__(
        self,
        distribution: "MetaWorld",
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
        self.terminate_on_success = distribution.rules.terminate_on_success
        self._made: dict[tuple[str, int, int], SceneGroup] = {}
        self._groups: list[SceneGroup] = []
        self._elapsed = torch.zeros(self.num_envs, dtype=torch.int64, device=device)
        self._faults = torch.zeros((), dtype=torch.int64, device=device)
        self._frame = torch.zeros(self.num_envs, 18, device=device)
        self._one_hot = torch.zeros(self.num_envs, 0, device=device)
        self._threads = len(os.sched_getaffinity(0)) if backend == "mujoco" else 1  # Warp launches from one thread
        self._simulators = ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,))
        self._streams: list[torch.cuda.Stream] = []
        self._cameras: dict[str, Camera] = {}

    @property
    def fault_count(self) -> int:
        """Simulations that broke down so far; on a GPU reading it waits for the steps under way."""
        return int(self._faults)

    @property
    def engines(self) -> list[Physics]:
        """What steps the scenes of the present tasks, one engine a scene."""
        return [group.physics for group in self._groups]

    def get_state(self) -> dict[str, Tensor]:
        """Each `[B, ...]`: the engine's state (`qpos`, `qvel`, …), `memory`, `starting`, `frame`, `elapsed_steps`.

        Scenes differ in the number of joints: rows are padded with zeros.
        """
        parts = [(group, group.get_state()) for group in self._groups]
        state = {}
        for name in dict.fromkeys(name for _, part in parts for name in part):
            width = max(part[name].shape[1] for _, part in parts if name in part)
            if not width:
                continue  # tasks that remember nothing
            state[name] = parts[0][1]["qpos"].new_zeros(self.num_envs, width)
            for group, part in parts:
                if name in part:
                    state[name][group.places, : part[name].shape[1]] = part[name]
        return state | {"frame": self._frame.clone(), "elapsed_steps": self._elapsed.clone()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        for group in self._groups:
            group.set_state({name: value[group.places] for name, value in state.items()})
        if "frame" in state:
            self._frame = state["frame"].to(self._frame).clone()
            self._observations = self._observe(self._frame, self._frame)
        if "elapsed_steps" in state:
            self._elapsed = state["elapsed_steps"].to(self.device).clone()
        self._started = True

    def render(self) -> tuple[Any, ...] | None:
        if self.render_mode is None:
            return super().render()
        pictures: dict[int, Any] = {}
        for group in self._groups:
            name = group.scene.scene.name
            if name not in self._cameras:
                self._cameras[name] = Camera(group)
            pictures |= zip(group.places.tolist(), self._cameras[name].take(group), strict=True)
        return tuple(pictures[place] for place in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        self._simulators.shutdown()
        for group in self._made.values():
            group.physics.close()
        for camera in self._cameras.values():
            camera.close()

    def _set_tasks(self, tasks: Tasks) -> None:
        names = [self.distribution.names[index] for index in tasks.parameters["task_index"].tolist()]
        vectors = tasks.parameters["rand_vec"].cpu().double()
        files: dict[str, dict[str, list[int]]] = {}
        for row, name in enumerate(names):
            files.setdefault(definition(name).scene, {}).setdefault(name, []).append(row)
        threads = max(1, self._threads // len(files))
        self._groups = [self._group(file, rows, vectors, threads) for file, rows in files.items()]
        self._places = torch.cat([group.places for group in self._groups])
        self._order = self._places.argsort()
        self._frame = self._gather([group.first_observation for group in self._groups])
        self._goal = self._gather([group.goals for group in self._groups])
        if not self.distribution.rules.goal_observable:
            self._goal.zero_()
        if self.distribution.rules.one_hot:
            index = tasks.parameters["task_index"].repeat_interleave(self.envs_per_task)
            self._one_hot = torch.nn.functional.one_hot(index, len(self.distribution.names)).float()
        self._observations = self._observe(self._frame, self._frame)

    def _group(self, file: str, rows: dict[str, list[int]], vectors: Float[Tensor, "M V"], threads: int) -> SceneGroup:
        members, places = [], []
        for name, chosen in rows.items():
            task = definition(name)
            starts = episode_starts(name, vectors[chosen][:, : len(task.random_low)])
            members.append((task, starts.rows(torch.arange(len(chosen)).repeat_interleave(self.envs_per_task))))
            first = torch.tensor(chosen) * self.envs_per_task
            places.append((first[:, None] + torch.arange(self.envs_per_task)).flatten())
        worlds = torch.cat(places)
        key = (file, len(worlds), threads)
        if key not in self._made:
            options = {"threads": threads} if self.backend == "mujoco" else {}
            self._made[key] = SceneGroup(file, len(worlds), backend=self.backend, device=self.device, **options)
        self._made[key].set_tasks(members, worlds, self.distribution.rules.reward)
        return self._made[key]

    def _reset(self, seed: int | None) -> tuple[Tensor, dict[str, Any]]:
        everywhere = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self._restart(everywhere)
        return self._observations, {}

    def _step(self, actions: Tensor) -> StepResult:
        with self._groups[0].physics.undisturbed():
            return self._advance(actions)

    def _advance(self, actions: Tensor) -> StepResult:
        outcomes, frame, fault = self._simulate(actions.clamp(-1, 1))
        # Whatever a broken simulation says is replaced by what was known before it broke.
        final_obs = torch.where(fault[:, None], self._observations, self._observe(frame, self._frame))
        outcomes = torch.where(fault[:, None], 0.0, outcomes)
        info = dict(zip(OUTCOMES, outcomes.unbind(1), strict=True))
        reward = info["unscaled_reward"] = info.pop("reward")
        info["success"] = success = info["success"] > 0
        self._faults = self._faults + fault.sum()
        self._elapsed = self._elapsed + 1
        terminated = success if self.terminate_on_success else torch.zeros_like(success)
        truncated = (self._elapsed >= self.distribution.horizon) | fault
        self._frame, self._observations = frame, final_obs
        ended = terminated | truncated
        if self.device.type != "cpu" or bool(ended.any()):
            self._restart(ended)
        info |= step_info(final_obs, ended, fault=fault)
        return self._observations, reward, terminated, truncated, info

    def _simulate(
        self, actions: Float[Tensor, "B 4"]
    ) -> tuple[Float[Tensor, "B 7"], Float[Tensor, "B 18"], Bool[Tensor, "B"]]:
        """One step of every group: outcomes, observed frames, faults."""
        like = self._groups[0].physics.qpos
        given = actions[self._places].to(like.dtype).split([len(group.places) for group in self._groups])
        step = self._step_on_streams if self.device.type == "cuda" else self._step_on_threads
        outcomes, frames = (self._gather(list(parts)) for parts in zip(*step(given), strict=True))
        faults = torch.cat([group.physics.faults for group in self._groups])[self._order]
        return outcomes, frames, faults

    def _step_on_threads(self, actions: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Threads simulate the groups side by side; as they come out this one judges them."""
        pairs = list(zip(self._groups, actions, strict=True))
        if len(pairs) == 1:
            self._groups[0].simulate(actions[0])
            return [self._groups[0].judge(actions[0])]
        simulated = [self._simulators.submit(group.simulate, own) for group, own in pairs]
        judged = []
        for future, (group, own) in zip(simulated, pairs, strict=True):
            future.result()
            judged.append(group.judge(own))
        return judged

    def _step_on_streams(self, actions: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Each stream starts when the present one gets here, and the present one goes on when all have ended."""
        present = torch.cuda.current_stream(self.device)
        while len(self._streams) < len(self._groups):
            self._streams.append(torch.cuda.Stream(self.device))
        streams = self._streams[: len(self._groups)]
        judged = []
        for group, stream, action in zip(self._groups, streams, actions, strict=True):
            stream.wait_stream(present)
            with torch.cuda.stream(stream):
                group.simulate(action)
                judged.append(group.judge(action))
        for stream in streams:
            present.wait_stream(stream)
        return judged

    def _restart(self, ended: Bool[Tensor, "B"]) -> None:
        """Starts the next episode where one has ended."""
        for group in self._groups:
            group.restart(ended[group.places])
        first = self._gather([group.first_observation for group in self._groups])
        self._frame = torch.where(ended[:, None], first, self._frame)
        self._observations = torch.where(ended[:, None], self._observe(first, first), self._observations)
        self._elapsed = self._elapsed.masked_fill(ended, 0)

    def _observe(self, now: Float[Tensor, "B 18"], before: Float[Tensor, "B 18"]) -> Float[Tensor, "B D"]:
        return torch.cat([now, before, self._goal, self._one_hot], 1)

    def _gather(self, parts: list[Tensor]) -> Tensor:
        """The groups' rows in the order of the batch, float32."""
        return torch.cat(parts)[self._order].float()
