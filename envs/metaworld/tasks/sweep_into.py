"""sweep-into-v3: sweep a block into a hole in the table."""

from metarl.envs.metaworld.definition import OBJECT, Marks, Placement, Points, Quaternions, Start, Vectors
from metarl.envs.metaworld.tasks.sweep import BLOCK_RADIUS, Sweep
from metarl.envs.metaworld.views import View, at_height, scalar_last

HOLE = (0.0, 0.84, 0.02)  # metres


class SweepInto(Sweep):
    """The random vector is the block's position (x and y) and four numbers that nothing uses: the hole stays."""

    name = "sweep-into-v3"
    scene = "sawyer_table_with_hole.xml"
    frames = ("body:obj", "geom_quat:objGeom", "touch:objGeom")
    random_low, random_high = (-0.1, 0.6, 0.02, -0.001, 0.8399, 0.0199), (0.1, 0.7, 0.02, 0.001, 0.8401, 0.0201)
    goal_low, goal_high = (-0.001, 0.8399, 0.0199), (0.001, 0.8401, 0.0201)
    grip_radius = BLOCK_RADIUS + 0.005
    xz_radius = 0.01

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: _at_rest(vector, settled)}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        block = _at_rest(vector, settled)
        return Start(target=vector.new_tensor(HOLE).expand_as(block), object=block, tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("obj"), scalar_last(view.geom_quat("objGeom")))]

    def aim(self, block: Points, start: Start) -> Points:
        """The hole's middle, at whatever height the block is."""
        return at_height(start.target, block[:, 2])

    def fallen(self, block: Points, start: Start) -> Marks:
        return super().fallen(block, start) & (block[:, 1] > 0.4) & (block[:, 1] < 1.0)


def _at_rest(vector: Vectors, settled: View) -> Points:
    """The block's position at the height where it lies once the scene has settled."""
    return at_height(vector, settled.body("obj")[:, 2])
