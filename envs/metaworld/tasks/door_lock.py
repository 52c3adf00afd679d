"""door-lock-v3: lock a door by turning its lock down."""

import math

from metarl.envs.metaworld.definition import Actions, Outcome, Points, Quaternions, Start, TaskDefinition, Vectors
from metarl.envs.metaworld.rewards import distance, hamacher, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View, constant

# Metres.
LOCK_LENGTH = 0.1
SUCCESS = 0.02
FAR = math.hypot(LOCK_LENGTH, 0.04)  # from the lock's origin to the target


class DoorLock(TaskDefinition):
    """The random vector places the door; the target is where the tip of the lock hangs when it is locked."""

    name = "door-lock-v3"
    scene = "sawyer_door_lock.xml"
    fixture = "door"
    frames = ("body:lock_link", "body_quat:door_link", "site:lockStartLock")
    random_low, random_high = (-0.1, 0.8, 0.15), (0.1, 0.85, 0.15)
    goal_low, goal_high = (-0.5, 0.40, -0.15), (0.5, 1.0, 0.5)
    hand_low = (-0.5, 0.40, -0.15)
    settling_steps = 51  # the package steps once more here

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        lock = placed.body("lock_link")
        return Start(target=lock + constant(lock, 0.0, -0.04, -LOCK_LENGTH), object=lock, tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.site("lockStartLock"), view.body_quat("door_link"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        lock, gripper = view.site("lockStartLock"), view.gripper
        reach = distance((lock - view.left_pad) * constant(lock, 0.25, 1.0, 0.5))
        to_target = (start.target[:, 2] - lock[:, 2]).abs()
        # The package's margin means the pad's position at the start, but follows the pad: far from the lock it is 0.1.
        reaching = tolerance(reach, 0.0, 0.01, reach)
        locking = tolerance(to_target, 0.0, 0.005, LOCK_LENGTH)
        return Outcome(
            reward=2 * hamacher(gripper, reaching) + 8 * locking,
            success=to_target <= SUCCESS,
            near_object=reach <= 0.05,
            grasp_success=gripper > 0,
            grasp_reward=reaching,
            in_place_reward=locking,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        return turn_v1(view, start, view.site("lockStartLock"))


def turn_v1(view: View, start: Start, lock: Points) -> Outcome:
    """Reward v1 for reaching the lock's tip and moving it to the target."""
    reach, to_target = distance(lock, view.tcp), distance(lock, start.target)
    reward = reach_and_move(reach, FAR, to_target)
    return Outcome.v1(reward, to_target, success=to_target <= SUCCESS)
