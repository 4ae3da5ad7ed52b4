"""The page on a tracker node, in a real browser: camera and observer in this process, node and viewer in others."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("tornado", reason="needs tornado (pip install 'lighttrack_ros[viewer]')")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from node_harness import NodeProcess, Tracker, World, box_of, node_command, stamp_of
from page_harness import Operator, SlowLink, Viewer, chromium

from lighttrack_ros.geometry import Box, intersection_over_union
from lighttrack_ros.media.scene import Scene
from lighttrack_ros.msg import TrackedTarget

SIZE = (320, 240)
NAMESPACE = "page"
DELAY = 0.5  # seconds, of the slow link in each direction


class Camera:
    """Shows the generated scene forwards and backwards, at 20 Hz; knows where the vehicle is by the stamp."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._frames = list(itertools.islice(Scene(20, *SIZE), 60))
        self.truth: dict[int, Box] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        order = [*self._frames, *self._frames[-2:0:-1]]
        for frame in itertools.cycle(order):
            stamp = time.time_ns()
            self.truth[stamp] = frame.box
            self._tracker.show(frame.image, stamp)
            if self._stop.wait(0.05):
                return


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def world(browser):
    world = World()
    yield world
    world.close()


@pytest.fixture(scope="module")
def tracker(world):
    tracker = Tracker(world, NAMESPACE, NodeProcess(node_command(NAMESPACE)))
    yield tracker
    tracker.close()


@pytest.fixture(scope="module")
def camera(tracker):
    camera = Camera(tracker)
    yield camera
    camera.close()


@pytest.fixture(scope="module")
def viewer(tracker):
    viewer = Viewer("--tracker", f"/{tracker.name}")
    yield viewer
    assert viewer.end() == 0, viewer.output
    assert "Traceback" not in viewer.output


@pytest.fixture
def operate(browser, viewer, camera, tracker):
    """Opens pages; in the end nothing is followed."""
    operators = []

    def open_page(port=None, **context):
        operator = Operator(browser, f"http://127.0.0.1:{port or viewer.port}/", **context)
        operators.append(operator)
        operator.wait_for_pictures()
        return operator

    yield open_page
    for operator in operators:
        operator.close()
    tracker.reset()


def point_at_the_vehicle(operator, camera, patience=0.0):
    """Drag a box over it; returns the stamp of the frame on the screen when the drag began, and the box."""
    expected = camera.truth[operator.wait(lambda: operator.shown()["stamp"], "a stamp")]
    operator.press(expected.x, expected.y, SIZE)
    held = operator.shown()["stamp"]
    time.sleep(patience)
    assert operator.shown()["stamp"] == held  # the picture stands still
    truth = camera.truth[held]
    box = Box(expected.x, expected.y, truth.x + truth.width - expected.x, truth.y + truth.height - expected.y)
    operator.release(box, SIZE)
    return held, box


def test_over_a_slow_link_the_tracker_starts_on_the_frame_of_the_drag_and_the_overlay_follows(
    operate, viewer, camera, tracker
):
    link = SlowLink(viewer.port, DELAY)
    operator = operate(link.port)
    operator.wait(lambda: tracker.get_parameters(["buffer_seconds"])[0].double_value == 10.0, "a larger buffer")
    tracker.targets.clear()
    # Slower than the second for which the node keeps images by itself.
    held, box = point_at_the_vehicle(operator, camera, patience=1.0)
    first = operator.wait(
        lambda: next((one for one in tracker.targets if one.state != TrackedTarget.STATE_IDLE), None), "a target"
    )
    assert stamp_of(first) == held
    assert box_of(first) == pytest.approx(box, abs=1.5)
    operator.wait_for_state("tracking")
    overlaps = []
    for _ in range(8):
        shown = operator.wait_for_pictures()
        (target,) = shown["targets"]
        overlaps.append(intersection_over_union(Box(*target["box"]), camera.truth[shown["stamp"]]))
    assert min(overlaps) > 0.4
    assert "is followed" in operator.text("#events")
    link.close()


def test_a_slow_click_on_a_live_camera_proposes_a_box_on_the_picture_of_the_press(operate, camera, tracker):
    operator = operate()
    expected = camera.truth[operator.wait(lambda: operator.shown()["stamp"], "a stamp")]
    operator.press(*expected.centre, SIZE)
    held = operator.shown()["stamp"]
    time.sleep(1.0)  # many newer pictures come meanwhile
    operator.page.mouse.up()
    proposed = operator.wait(operator.selected, "a proposal")
    assert operator.shown()["stamp"] == held
    assert intersection_over_union(proposed, camera.truth[held]) > 0.3
    operator.page.keyboard.press("Enter")
    operator.wait_for_state("tracking")
    assert tracker.targets[-1].state != TrackedTarget.STATE_IDLE


def test_reset_and_enable(operate, camera, tracker):
    operator = operate()
    point_at_the_vehicle(operator, camera)
    operator.wait_for_state("tracking")
    operator.page.get_by_role("button", name="Reset").click()
    operator.wait(lambda: not operator.shown()["targets"], "no target")
    assert tracker.targets[-1].state == TrackedTarget.STATE_IDLE
    operator.wait(lambda: "told to forget it" in operator.text("#events"), "the end in the list")
    operator.page.get_by_label("Enabled").uncheck()
    operator.wait(lambda: tracker.counts()["enabled"] == "false", "the node to rest")
    operator.page.get_by_label("Enabled").check()
    operator.wait(lambda: tracker.counts()["enabled"] == "true", "the node to work")


def test_several_targets_have_names_and_colours_and_one_of_them_is_forgotten(operate, camera):
    operator = operate()
    point_at_the_vehicle(operator, camera)
    operator.wait_for_state("tracking")
    operator.page.get_by_label("One more").check()
    operator.page.get_by_label("Name of the next one").fill("tree")
    operator.drag(Box(200, 20, 50, 50), SIZE)
    operator.wait(lambda: {target["id"] for target in operator.shown()["targets"]} == {"1", "tree"}, "two targets")
    dots = "[...document.querySelectorAll('#targets .dot')].map((dot) => dot.style.background)"
    operator.wait(lambda: len(set(operator.page.evaluate(dots))) == 2, "two colours")
    operator.page.get_by_role("button", name="Forget tree").click()
    operator.wait(lambda: [target["id"] for target in operator.shown()["targets"]] == ["1"], "one target")
    # One that is drawn anew keeps its name.
    operator.page.get_by_label("One more").uncheck()
    point_at_the_vehicle(operator, camera)
    operator.wait(lambda: "replaced by a new box" in operator.text("#events"), "the change")
    assert [target["id"] for target in operator.wait_for_pictures(3)["targets"]] == ["1"]


def test_two_pages_show_the_same_and_a_stalled_one_holds_up_neither(operate, viewer, camera, tracker):
    link = SlowLink(viewer.port, 0.0)
    one, other, stalled = operate(), operate(), operate(link.port)
    link.stall()
    point_at_the_vehicle(one, camera)
    one.wait_for_state("tracking")
    other.wait_for_state("tracking")
    before = stalled.shown()["number"]
    for operator in (one, other):
        operator.wait_for_pictures(40)
    assert stalled.shown()["number"] < before + 40
    link.close()


def test_a_page_of_another_origin_gets_no_connection(browser, viewer, camera):
    context = browser.new_context()
    page = context.new_page()
    page.route("**/*", lambda route: route.fulfill(body="<title>elsewhere</title>", content_type="text/html"))
    page.goto("http://elsewhere.example/")
    outcome = page.evaluate(
        f"""() => new Promise((resolve) => {{
            const socket = new WebSocket("ws://127.0.0.1:{viewer.port}/link");
            socket.onopen = () => resolve("open");
            socket.onerror = () => resolve("refused");
        }})"""
    )
    context.close()
    assert outcome == "refused"


def test_settings_are_changed_and_what_cannot_be_is_as_it_was(operate, world, camera, tracker):
    operator = operate()
    operator.page.get_by_text("Model and camera").click()
    operator.page.select_option("#backend", "tensorrt")  # which is not here
    operator.page.get_by_role("button", name="Apply").click()
    operator.wait(lambda: "all is as it was" in operator.text("#message"), "the refusal")
    operator.wait(lambda: tracker.state() == "active", "the node at work")
    operator.page.select_option("#backend", "onnxruntime")
    operator.page.get_by_role("button", name="Apply").click()
    operator.wait(lambda: "point at the target again" in operator.text("#message"), "the change")
    assert tracker.get_parameters(["backend"])[0].string_value == "onnxruntime"
    operator.wait_for_pictures()
    point_at_the_vehicle(operator, camera)
    operator.wait_for_state("tracking")


def test_while_nobody_watches_no_image_is_taken(operate, world, camera, tracker, viewer):
    operator = operate()
    names = lambda: {info.node_name for info in world.node.get_subscriptions_info_by_topic(tracker.camera.topic_name)}  # noqa: E731
    operator.wait(lambda: "viewer" in names(), "the viewer's subscription")
    operator.page.goto("about:blank")
    operator.wait(lambda: "viewer" not in names(), "the end of the subscription")
    operator.wait(lambda: tracker.get_parameters(["buffer_seconds"])[0].double_value == 1.0, "the node's own buffer")


def test_a_node_whose_services_are_not_known_yet_is_there_all_the_same(browser, world):
    """After a crash the middleware may take long to know of the new node's services: the page must not come and go."""
    diagnostics = world.node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    status = DiagnosticStatus(name="ghost/tracker: tracking", values=[KeyValue(key="image_topic", value="/nothing")])
    viewer = Viewer("--tracker", "/ghost/tracker")
    operator = Operator(browser, viewer.url)
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        diagnostics.publish(DiagnosticArray(status=[status]))
        time.sleep(0.5)
    operator.wait(lambda: "takes no orders yet" in operator.text("#hint"), "what is missing")
    words = operator.text("#events")
    assert words.count("is there") == 1
    assert "is gone" not in words
    operator.wait(lambda: "no tracker node" in operator.text("#hint"), "the news that it is gone")
    world.node.destroy_publisher(diagnostics)
    operator.close()
    assert viewer.end() == 0


def test_the_page_finds_its_way_back_to_a_node_and_a_viewer_that_were_restarted(browser, world, camera, tracker):
    first = Viewer("--tracker", f"/{tracker.name}")
    operator = Operator(browser, first.url)
    operator.wait_for_pictures()
    point_at_the_vehicle(operator, camera)
    operator.wait_for_state("tracking")
    assert first.end() == 0
    operator.wait(lambda: "no connection" in operator.text("#connection"), "the news of it")
    second = Viewer("--tracker", f"/{tracker.name}", port=first.port)
    operator.wait(lambda: operator.text("#connection") == "connected", "the connection")
    operator.wait_for_state("tracking")  # the node has gone on meanwhile
    tracker.process.process.kill()
    operator.wait(lambda: "no tracker node" in operator.text("#hint"), "the news of it")
    tracker.process.wait()
    tracker.process = NodeProcess(node_command(NAMESPACE))
    operator.wait(lambda: operator.page.locator("#hint").is_hidden(), "the node")
    operator.wait(lambda: not operator.shown()["targets"], "no target")
    operator.wait_for_pictures(3)
    point_at_the_vehicle(operator, camera)
    operator.wait_for_state("tracking")
    operator.close()
    assert second.end() == 0
