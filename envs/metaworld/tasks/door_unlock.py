"""door-unlock-v3: unlock a door by turning its lock aside."""

from metarl.envs.metaworld.definition import (
    OBJECT,
    Actions,
    Outcome,
    Placement,
    Points,
    Quaternions,
    Start,
    Vectors,
)
from metarl.envs.metaworld.rewards import distance, tolerance
from metarl.envs.metaworld.tasks.door_lock import LOCK_LENGTH, SUCCESS, DoorLock, turn_v1
from metarl.envs.metaworld.views import View, constant

LOCKED = 1.5708  # rad
SHOULDER = (0.0, 0.055, 0.07)  # metres from the hand (or the tool centre) to what has to push
WEIGHTS = (0.25, 1.0, 0.5)


class DoorUnlock(DoorLock):
    """The random vector places the locked door; the target is where the tip of the lock is when it is unlocked."""

    name = "door-unlock-v3"
    frames = ("body:lock_link", "body_quat:door_link", "site:lockStartUnlock")
    goal_low, goal_high = (0.0, 0.64, 0.21), (0.2, 0.7, 0.2111)
    settling_steps = 50

    def place(self, vector: Vectors, settled: View) -> Placement:
        zero = vector.new_zeros(len(vector), 1)
        return Placement({OBJECT: zero + LOCKED}, {OBJECT: zero})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        lock = placed.body("lock_link")
        return Start(target=lock + constant(lock, LOCK_LENGTH, -0.04, 0.0), object=lock, tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.site("lockStartUnlock"), view.body_quat("door_link"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        lock, gripper = view.site("lockStartUnlock"), view.gripper
        shoulder, weights = constant(lock, *SHOULDER), constant(lock, *WEIGHTS)
        reach = distance((view.hand + shoulder - lock) * weights)
        margin = distance((start.tcp + shoulder - start.object) * weights)
        reaching = tolerance(reach, 0.0, 0.02, margin)
        to_target = (start.target[:, 0] - lock[:, 0]).abs()
        unlocking = tolerance(to_target, 0.0, 0.005, LOCK_LENGTH)
        return Outcome(
            reward=2 * reaching + 8 * unlocking,
            success=to_target <= SUCCESS,
            near_object=reach <= 0.05,
            grasp_success=gripper > 0,
            grasp_reward=reaching,
            in_place_reward=unlocking,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        return turn_v1(view, start, view.site("lockStartUnlock"))
