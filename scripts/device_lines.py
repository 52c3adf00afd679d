"""The lines of `metarl benchmark device`."""

FAMILIES = (
    "HalfCheetahVel-v0",
    "AntGoal-v0",
    "HumanoidDir-v0",
    "ML1-reach-v3",
    "ML1-pick-place-v3",
    "ML1-door-open-v3",
    "ML10-v3",
    "MT50-v3",
    "HalfCheetahDir-v0",
)
