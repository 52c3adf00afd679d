"""The viewer's page in a real browser: the robot moves, sliders reach the environment, buttons reach the agent."""

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from browser import CHROMIUM, PATIENCE, Page, open_page
from PIL import Image
from watch_helpers import Homing, free_port

import metarl
from metarl.agents.random import RandomAgent, RandomConfig
from metarl.scripts.watch_page import WatchPage
from metarl.scripts.watch_session import WatchSession

pytest.importorskip("viser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
    # viser leaves the closing of its sockets to the interpreter.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextlib.contextmanager
def watched(session: WatchSession) -> Iterator[Page]:
    """The session's page in the browser, while the session plays in a thread of its own."""
    port = free_port()
    with contextlib.closing(session):
        server = WatchPage(session, title="an agent", episodes=3, port=port)
        player = threading.Thread(target=server.run)
        player.start()
        try:
            with open_page() as page:
                page.open(f"http://127.0.0.1:{port}", width=1280, height=800)
                page.wait_for("document.body.innerText.includes('an agent')")
                page.wait_for("document.querySelector('canvas') !== null")
                yield page
        finally:
            server.stop()
            player.join()
            server.close()


def click(page: Page, text: str) -> None:
    """Clicks the button with this text."""
    page.run(f"[...document.querySelectorAll('button')].find(button => button.innerText.trim() === {text!r}).click()")


def type_number(page: Page, number: int, value: float) -> None:
    """Types a value into the number field of the page's slider of this number, counted from the last."""
    field = f"[...document.querySelectorAll('input')].filter(input => input.type === 'text').at({number})"
    page.run(f"{field}.focus()")
    page.run(f"{field}.select()")
    page.call("Input.insertText", text=str(value))
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)


def scene(page: Page) -> np.ndarray:
    """The left part of the window, where no controls are."""
    return np.asarray(Image.open(io.BytesIO(page.picture())).convert("RGB"))[:, :800].astype(int)


def says(page: Page, text: str) -> None:
    page.wait_for(f"document.body.innerText.includes({text!r})")


def test_sliders_and_buttons_reach_the_environment_and_the_agent():
    family = metarl.make("PointNavigation-v0", horizon=8)
    session = WatchSession(Homing(RandomConfig(), metarl.EnvSpec.of(family)), family, family.task(goal=[0.3, 0.0]))
    with watched(session) as page:
        says(page, "not adapted")
        click(page, "Adapt with 3 episodes")
        says(page, "adapted with 3 episodes")
        says(page, "return -0.05")
        type_number(page, -1, -0.4)
        says(page, "goal (0.3, -0.4)")
        assert session.values["goal"] == pytest.approx([0.3, -0.4])
        says(page, "not adapted")
        click(page, "Adapt with 3 episodes")
        says(page, "adapted with 3 episodes")
        click(page, "Reset")
        says(page, "not adapted")
        click(page, "Another task")
        page.wait_for("!document.body.innerText.includes('goal (0.3, -0.4)')")
        assert page.errors == []


def until(found: Callable[[], bool], what: str) -> None:
    """Waits until `found()`; a browser without a GPU draws a few frames a second."""
    deadline = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.mark.parametrize("id", ["PointNavigation-v0", "HalfCheetahVel-v0", "ML1-reach-v3"])
def test_the_robot_moves_and_stands_still_in_a_pause(id: str):
    family = metarl.make(id, horizon=200)
    task = family.sample(1, split="test", seed=0)
    session = WatchSession(RandomAgent(RandomConfig(), metarl.EnvSpec.of(family)), family, task)
    with watched(session) as page:
        until(lambda: scene(page).std() > 5, "nothing is drawn")
        first = scene(page)
        until(lambda: np.abs(scene(page) - first).max() > 30, "the robot does not move")
        page.run("[...document.querySelectorAll('input[type=checkbox]')].at(-1).click()")  # viser's own come first
        until(lambda: page.run(STEP) == (time.sleep(1), page.run(STEP))[1], "a pause does not stop the steps")
        still = scene(page)
        assert np.abs(scene(page) - still).max() < 30
        assert page.errors == []


STEP = "document.body.innerText.match(/step \\d+/)[0]"
