"""Locomotion: task families over the robots of Gymnasium's MuJoCo environments (version 5)."""

FACTORIES = {
    "HalfCheetahDir-v0": "metarl.envs.locomotion.families:HalfCheetahDir",
    "HalfCheetahVel-v0": "metarl.envs.locomotion.families:HalfCheetahVel",
    "AntDir-v0": "metarl.envs.locomotion.families:ant_dir",
    "AntVel-v0": "metarl.envs.locomotion.families:AntVel",
    "AntGoal-v0": "metarl.envs.locomotion.families:AntGoal",
    "HumanoidDir-v0": "metarl.envs.locomotion.families:HumanoidDir",
    "Walker2dRandParams-v0": "metarl.envs.locomotion.random_params:Walker2dRandParams",
    "HopperRandParams-v0": "metarl.envs.locomotion.random_params:HopperRandParams",
}
"""Id: path of the factory. MuJoCo is imported when a family is made, not when it is listed."""
