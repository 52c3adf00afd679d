"""What a Meta-World task consists of: a scene, a space of random vectors, and pure functions of a batch of scenes."""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.metaworld.views import View

Triple = tuple[float, float, float]
Vectors = Float[Tensor, "R V"]
Points = Float[Tensor, "R 3"]
Quaternions = Float[Tensor, "R 4"]
Actions = Float[Tensor, "R 4"]
Scalars = Float[Tensor, "R"]
Marks = Bool[Tensor, "R"]

OBJECT_SIZE = 14
"""Numbers in the observation for objects: two of position (3) and orientation (4), zeros where there is no second."""

OBJECT = 9
"""Index in `qpos` and `qvel` of the first joint of a scene's objects, after seven of the arm and two of the fingers."""

SETTLING_STEPS = 50
"""Steps in which the hand comes to rest."""


@dataclass(frozen=True)
class Placement:
    """What moves after the hand has settled: index in `qpos` (or `qvel`) → the numbers from there on.

    >>> Placement(qpos={OBJECT: vector[:, :3]})
    """

    qpos: Mapping[int, Float[Tensor, "R _"]] = field(default_factory=dict)
    qvel: Mapping[int, Float[Tensor, "R _"]] = field(default_factory=dict)
    seen: bool = True
    """Whether the first observation shows it. In some tasks of the package it shows the state before."""


@dataclass(frozen=True)
class Start:
    """What an episode's rewards remember of its start, each `[R, ...]`; positions in metres.

    >>> start = Start(target=target, object=block, tcp=settled.tcp, extra={"longest": longest})
    >>> start["longest"]
    """

    target: Points
    """Where the object has to go: the goal that the observation shows or hides."""
    object: Points
    """Where the object was."""
    tcp: Points
    """Where the tool centre point was."""
    extra: Mapping[str, Float[Tensor, "R ..."]] = field(default_factory=dict)
    """Whatever else this task remembers, by name."""

    def __getitem__(self, name: str) -> Tensor:
        return self.extra[name]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Start":
        """The same with every tensor changed."""
        extra = {name: change(value) for name, value in self.extra.items()}
        return Start(change(self.target), change(self.object), change(self.tcp), extra)


@dataclass(frozen=True)
class Outcome:
    """How a step is scored, each `[R]`: the numbers of the package's `info`, and the reward.

    >>> Outcome.v1(reward, to_target, success=to_target < 0.05)
    """

    reward: Scalars
    success: Marks
    near_object: Marks | Scalars
    grasp_success: Marks
    grasp_reward: Scalars
    in_place_reward: Scalars
    obj_to_target: Scalars

    @classmethod
    def v1(
        cls,
        reward: Scalars,
        obj_to_target: Scalars,
        *,
        success: Marks,
        near_object: bool = True,
        grasp_success: bool = False,
    ) -> "Outcome":
        """The outcome of a step under reward v1, for which the package fills the other numbers with zeros."""
        zeros = torch.zeros_like(reward)
        return cls(
            reward,
            success,
            torch.full_like(success, near_object),
            torch.full_like(success, grasp_success),
            zeros,
            zeros,
            obj_to_target,
        )


class TaskDefinition(abc.ABC):
    """A task of Meta-World, without any state of its own. Its methods work on `R` scenes at once.

    An episode begins in four steps: the fixture goes where the random vector says, the hand settles at `hand_start` for
    `settling_steps` with the gripper open, `place` moves objects, and `start` keeps what rewards will need.

    >>> task = definition("reach-v3")
    >>> task.evaluate(view, start, action).success
    """

    name: ClassVar[str]
    scene: ClassVar[str]
    """The XML file of the package."""
    fixture: ClassVar[str | None] = None
    """The body that the random vector places and that stands still from then on."""
    frames: ClassVar[tuple[str, ...]] = ()
    """What the task reads besides the arm, as `"kind:name"` (`views.SIZES`)."""
    random_low: ClassVar[tuple[float, ...]]
    random_high: ClassVar[tuple[float, ...]]
    goal_low: ClassVar[Triple]
    goal_high: ClassVar[Triple]
    """Bounds of the observed goal."""
    hand_low: ClassVar[Triple] = (-0.5, 0.40, 0.05)
    hand_high: ClassVar[Triple] = (0.5, 1.0, 0.5)
    """Bounds of the commanded hand position."""
    hand_start: ClassVar[Triple] = (0.0, 0.6, 0.2)
    settling_steps: ClassVar[int] = SETTLING_STEPS
    """Steps before `place`. Even if there are more than `SETTLING_STEPS`, `settled` is what is seen after so many."""

    def fixture_position(self, vector: Vectors) -> Points:
        """Where the fixture stands; called only if there is one."""
        raise NotImplementedError

    def place(self, vector: Vectors, settled: View) -> Placement | None:
        """Where objects go once the hand has settled; None leaves the scene as it is.

        `settled` is what MuJoCo leaves behind: joints after the last frame, positions of bodies just before it.
        """
        return None

    @abc.abstractmethod
    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        """What the rewards need to know of the start. `placed` is the view after `place` has moved things."""

    @abc.abstractmethod
    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        """One or two observed objects: position and quaternion, its numbers in the order that the package uses here."""

    @abc.abstractmethod
    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        """Reward v2 of the step that led to `view`; actions as the agent gave them."""

    @abc.abstractmethod
    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        """Reward v1 of the step that led to `view`."""

    def remember(self, view: View, start: Start, first: Marks) -> Mapping[str, Tensor]:
        """New values for entries of `start.extra`, before the step is evaluated.

        `first` `[R]`: whether the step is the first of its episode.
        """
        return {}

    def observe(self, view: View) -> Float[Tensor, "R 18"]:
        """Hand (3), gripper (1), objects (14)."""
        objects = self.objects(view)
        parts = [part for pair in objects for part in pair]
        rest = view.hand.new_zeros(len(view.hand), OBJECT_SIZE - 7 * len(objects))
        return torch.cat([view.hand, view.gripper[:, None], *parts, rest], 1)
