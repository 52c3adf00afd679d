"""The page of `metarl watch`: the robot in the browser, knobs of its task and buttons, by viser and mjviser."""

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from jaxtyping import UInt8

from metarl.envs.physics import PhysicsEnv
from metarl.envs.physics.world import World
from metarl.errors import UsageError
from metarl.experiment.report_tables import figure
from metarl.scripts.watch_session import Interrupted, Knob, Moment, Outcome, WatchSession
from metarl.vector_env import TaskVectorEnv

MOST_KNOBS = 24
"""A task of more numbers has no knobs: only whole tasks can be drawn."""
STEPS_A_SECOND = 30
_CAMERA = (-1.0, -1.2, 0.8)
"""Where the camera stands, seen from what it looks at, in units of its distance."""
_HIDDEN = 5
"""The group of sites that no viewer shows by itself."""


def check_port(host: str, port: int) -> None:
    """Raises `UsageError` if no page can be served there. viser would silently take another port."""
    with contextlib.closing(socket.socket()) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except (OSError, OverflowError) as error:
            raise UsageError(f"port {port} of {host} is not free ({error}): choose another with --port") from None


class WatchPage:
    """Serves a session on a page and plays it until `stop`.

    The browser's events come from threads of the server and wait in a queue; only `run` touches the session.

    >>> page = WatchPage(session, title="rl2 on ML1-reach-v3", episodes=1)
    >>> page.run()
    """

    def __init__(self, session: WatchSession, *, title: str, episodes: int, host: str = "127.0.0.1", port: int = 8080):
        check_port(host, port)
        try:
            import mjviser  # noqa: F401 - wanted once a scene is drawn
            import viser
        except ImportError:
            raise UsageError("metarl watch needs viser and mjviser: pip install 'metarl-kit[viewer]'") from None
        logging.getLogger("websockets").setLevel(logging.ERROR)
        self.session, self._title, self._episodes = session, title, episodes
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._last = ""
        self.server = viser.ViserServer(host=host, port=port, label="metarl watch", verbose=False)
        self.server.gui.configure_theme(show_logo=False, show_share_button=False)
        self.server.gui.main_panel.dock_right()
        self._screen = _screen(self.server, session)
        self._add_controls()

    def run(self) -> None:
        """Plays episodes and obeys the page, until `stop` is called."""
        while not self._stopped.is_set():
            self._obey()
            try:
                outcome = self.session.play(self._show)
            except Interrupted:
                continue
            self._tell(outcome)

    def stop(self) -> None:
        """Ends `run`, soon; may be called from another thread."""
        self._stopped.set()

    def close(self) -> None:
        """Ends the server, once `run` has ended."""
        self.server.stop()

    def _add_controls(self) -> None:
        gui = self.server.gui
        self._status = gui.add_markdown("")
        adapt = gui.add_button(f"Adapt with {self._episodes} episode{'s' * (self._episodes != 1)}")
        adapt.on_click(lambda _: self._commands.put(self._adapt))
        gui.add_button("Reset").on_click(lambda _: self._commands.put(self.session.reset))
        gui.add_button("Another task").on_click(lambda _: self._commands.put(self._draw_task))
        self._pause = gui.add_checkbox("Pause", False)
        self._speed = gui.add_slider("Steps a second", min=1, max=200, step=1, initial_value=STEPS_A_SECOND)
        self._folder = gui.add_folder("Task")
        self._handles: list[Any] = []
        self._add_knobs()
        self._write("")

    def _add_knobs(self) -> None:
        """Makes the knobs anew, at the values of the present task."""
        for handle in self._handles:
            handle.remove()
        knobs = self.session.knobs()
        with self._folder:
            self._handles = [self._add_knob(knob) for knob in knobs] if len(knobs) <= MOST_KNOBS else []

    def _add_knob(self, knob: Knob) -> Any:
        gui = self.server.gui
        if knob.choices:
            texts = {str(choice): choice for choice in knob.choices}
            handle: Any = gui.add_dropdown(knob.label, tuple(texts), initial_value=str(knob.value))
        else:
            texts = {}
            step = 1 if knob.whole else (knob.high - knob.low) / 200
            number = int if knob.whole else float
            low, high, value = number(knob.low), number(knob.high), number(knob.value)
            handle = gui.add_slider(knob.label, min=low, max=high, step=step, initial_value=value)

        def turned(_: Any) -> None:
            chosen = texts[handle.value] if knob.choices else min(max(handle.value, knob.low), knob.high)
            self._commands.put(lambda: self._turn(knob, chosen))

        handle.on_update(turned)
        return handle

    def _turn(self, knob: Knob, value: Any) -> None:
        before = [(other.label, other.low, other.high) for other in self.session.knobs()]
        self.session.turn(knob.parameter, knob.index, value)
        if [(other.label, other.low, other.high) for other in self.session.knobs()] != before:
            self._add_knobs()

    def _draw_task(self) -> None:
        self.session.draw_task()
        self._add_knobs()

    def _adapt(self) -> None:
        self._write("adapting …")
        self.session.adapt(self._episodes)

    def _obey(self) -> None:
        """Does what the page has asked for. What the session refuses stands on the page until the next request."""
        while not self._commands.empty():
            self._last = ""
            try:
                self._commands.get()()
            except UsageError as error:
                self._last = f"refused: {error}"
                self._add_knobs()
            self._write("")

    def _show(self, moment: Moment) -> None:
        start = time.monotonic()
        self._screen(moment)
        self._write(f"step {moment.step}, return {figure(moment.episode_return)}")
        while self._pause.value or time.monotonic() - start < 1 / self._speed.value:
            if self._stopped.is_set() or not self._commands.empty():
                break
            time.sleep(0.002)
        if self._stopped.is_set() or not self._commands.empty():
            raise Interrupted

    def _tell(self, outcome: Outcome) -> None:
        success = "" if outcome.success is None else f", {'success' if outcome.success else 'no success'}"
        self._last = f"last episode: return {figure(outcome.episode_return)}{success}"

    def _write(self, now: str) -> None:
        used = self.session.episodes_used
        stage = f"adapted with {used} episode{'s' * (used != 1)}" if used else "not adapted"
        task = ", ".join(f"{name} {_text(value)}" for name, value in self.session.values.items())
        lines = [f"**{self._title}**", task, f"**{stage}**, episode {self.session.episodes_played}", now, self._last]
        self._status.content = "\n\n".join(_escaped(line) if i in (1, 4) else line for i, line in enumerate(lines))


def _screen(server: Any, session: WatchSession) -> Callable[[Moment], None]:
    """What draws the environment: as a scene in space if it has one, otherwise by its own pictures."""
    env = session.env
    if session.has_scene:
        assert isinstance(env, PhysicsEnv)
        return _Scene(server, env)

    picture = server.scene.add_image("/picture", _picture(env), render_width=1.0, render_height=1.0, format="png")
    server.initial_camera.position, server.initial_camera.look_at = (0.0, 0.0, -1.2), (0.0, 0.0, 0.0)
    server.initial_camera.up = (0.0, -1.0, 0.0)  # pictures lie in the plane with their rows along y

    def draw(_: Moment) -> None:
        picture.image = _picture(env)

    return draw


def _picture(env: TaskVectorEnv) -> UInt8[np.ndarray, "H W 3"]:
    (picture,) = env.render() or ()
    return np.asarray(picture)


class _Scene:
    """Draws environment 0 of a simulation. A task of another scene replaces what is drawn."""

    def __init__(self, server: Any, env: PhysicsEnv):
        self._server, self._env = server, env
        self._scene: Any = None
        self._drawn: Any = None

    def __call__(self, moment: Moment) -> None:
        world = self._env.world(0)
        if world.scene is not self._scene:
            self._build(world)
        world.place(self._model, self._data)
        self._drawn.update_from_mjdata(self._data)
        if world.mark is not None:
            self._goal.position = world.mark

    def _build(self, world: World) -> None:
        import mjviser

        self._server.scene.reset()
        self._scene, self._model = world.scene, world.scene.rendering_model()
        self._data = mujoco.MjData(self._model)
        if world.mark is not None:
            self._model.site_group[:] = _HIDDEN  # some of Meta-World's sites mark goals that are not the task's
        self._drawn = mjviser.ViserMujocoScene(self._server, self._model, num_envs=1)
        centre, distance = np.zeros(3), 1.3 * size_of_robot(self._model)
        # A robot that walks stays in the middle; one that stands by its goal does not move the room.
        self._drawn.camera_tracking_enabled = world.mark is None
        if world.mark is not None:
            self._goal = self._server.scene.add_icosphere("/goal", radius=0.02, color=(30, 200, 60))
            centre, distance = np.array(world.mark), 0.9
        self._server.initial_camera.position = centre + distance * np.array(_CAMERA)
        self._server.initial_camera.look_at = centre


def size_of_robot(model: mujoco.MjModel) -> float:
    """The diagonal (m) of a box around all that moves, as the model starts. MuJoCo's own extent is that of the floor
    too: from so far away a robot is a few pixels in the fog."""
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    moves = model.geom_bodyid > 0
    if not moves.any():
        return float(model.stat.extent)
    reach = model.geom_rbound[moves, None]
    low, high = (data.geom_xpos[moves] - reach).min(0), (data.geom_xpos[moves] + reach).max(0)
    return float(np.linalg.norm(high - low))


def _text(value: Any) -> str:
    """A value in few digits."""
    if isinstance(value, list | tuple | np.ndarray):
        return f"({', '.join(map(_text, value))})"
    return f"{value:.3g}" if isinstance(value, int | float) else str(value)


def _escaped(text: str) -> str:
    for sign in "\\`*_[]<>#{}":
        text = text.replace(sign, f"\\{sign}")
    return text
