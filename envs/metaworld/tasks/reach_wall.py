"""reach-wall-v3: bring the gripper to a goal behind a wall."""

import torch

from metarl.envs.metaworld.definition import Outcome, Scalars
from metarl.envs.metaworld.tasks.reach import TARGET_RADIUS, Reach


class ReachWall(Reach):
    """As reach-v3 (puck and goal), with a wall that always stands in the same place."""

    name = "reach-wall-v3"
    scene = "sawyer_reach_wall_v3.xml"
    random_low, random_high = (-0.05, 0.6, 0.015, -0.05, 0.85, 0.05), (0.05, 0.65, 0.015, 0.05, 0.9, 0.3)
    goal_low, goal_high = (-0.05, 0.85, 0.05), (0.05, 0.9, 0.3)

    def outcome(self, reward: Scalars, in_place: Scalars, to_target: Scalars) -> Outcome:
        success, zeros = to_target <= TARGET_RADIUS, torch.zeros_like(reward)
        return Outcome(
            reward,
            success=success,
            near_object=torch.zeros_like(success),
            grasp_success=torch.zeros_like(success),
            grasp_reward=zeros,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )
