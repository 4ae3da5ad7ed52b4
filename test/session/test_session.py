"""A target's life: what is believed, what is doubted, when it is lost, where it is looked for, when it is found."""

import dataclasses

import cv2
import numpy as np
import pytest

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.geometry import Box, context_side
from lighttrack_ros.image import from_bgr
from lighttrack_ros.models import SessionSettings, load_model
from lighttrack_ros.session import NOWHERE, Session, State
from lighttrack_ros.session.judge import Verdict
from lighttrack_ros.session.verifier import Verifier
from lighttrack_ros.trackers import create_tracker
from lighttrack_ros.trackers.base import Estimate, Sight, Tracker, check_box

FRAME = from_bgr(np.zeros((480, 640, 3), np.uint8))
START = Box(300, 200, 40, 30)
SETTINGS = SessionSettings(uncertain=0.4, sure=0.6, lost=0.4, lost_frames=3, again=0.6, found=0.6, found_frames=2)
SURE, HALF, GONE = 0.9, 0.5, 0.1


class ScriptedTracker(Tracker):
    """Answers what the script says: (evidence, movement in x) a frame; an exception is raised.

    Looks elsewhere than where it was led are answered by `elsewhere`, a function of the place.
    """

    target = None
    appearance = None

    def __init__(self):
        self.script = []
        self.looked = []
        self.elsewhere = lambda place: GONE

    def another(self):
        return type(self)()

    def init(self, frame, box):
        check_box(frame, box)
        self.target = box

    def update(self, frame):
        self.looked.append(self.target)
        if self.is_elsewhere:
            return Estimate(self.target, 0.999, evidence=self.elsewhere(self.target))
        answer = self.script.pop(0)
        self.is_elsewhere = True  # what is asked for next on this frame
        if isinstance(answer, Exception):
            raise answer
        evidence, movement = answer if isinstance(answer, tuple) else (answer, 0)
        self.target = self.target._replace(x=self.target.x + movement)
        return Estimate(self.target, 0.999, evidence=evidence)

    def sight(self):
        if self.appearance is None:
            return None
        return Sight(np.array([self.target]), np.zeros(1), np.tile(self.appearance, (1, 4, 4, 1)), 0.0, 1.0)

    def close(self):
        pass


@pytest.fixture
def session():
    session = Session(ScriptedTracker(), SETTINGS)
    session.start(FRAME, START)
    return session


def play(session, *script):
    session._tracker.script = list(script)
    return [step(session) for _ in script]


def step(session):
    session._tracker.is_elsewhere = False
    return session.step(FRAME)


def states(session, *script):
    return "".join("ITUL"[report.state] for report in play(session, *script))


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([SURE, HALF, SURE], "TTT"),
        ([GONE, HALF, HALF, HALF, HALF], "UUUUU"),  # what is enough to go on is not enough to be believed again
        ([GONE, SURE, SURE], "UUT"),
        ([GONE, SURE, HALF, SURE, SURE], "UUUUT"),  # confirmed in a row
        ([GONE, SURE, (SURE, 300), SURE], "UUUT"),  # at one place
        ([GONE, GONE, HALF, GONE, GONE, HALF, GONE], "UUUUUUU"),  # lost only after doubt in a row
        ([GONE, GONE, GONE, GONE], "UULL"),
        ([GONE] + 15 * [HALF] + [SURE, SURE], "U" * 15 + "LUT"),  # doubt that lasts
        ([GONE, GONE, GONE, HALF, HALF], "UULLL"),
        ([GONE, GONE, GONE, SURE, SURE, SURE], "UULUTT"),
        ([GONE, GONE, GONE, SURE, HALF, SURE, SURE], "UULULUT"),
        ([GONE, GONE, GONE, SURE, (SURE, 300), SURE], "UULUUT"),
        ([GONE, GONE, GONE, SURE, SURE, GONE, GONE, GONE], "UULUTUUL"),  # counted afresh
        ([SURE, LightTrackError("no"), SURE], None),
    ],
)
def test_states_follow_the_evidence(session, script, expected):
    if expected is None:
        session._tracker.script = list(script)
        assert step(session).state == State.TRACKING
        with pytest.raises(LightTrackError):
            step(session)
        assert step(session).state == State.TRACKING
    else:
        assert states(session, *script) == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([(0.2, 0.9)] * 9, "U" * 9),  # a box that is wrong, of a target that is in view
        ([(0.9, 0.2)] * 4, "UULL"),
        # It is in view again where the tracker was led; of what was found a verdict is asked afresh.
        ([(0.9, 0.2)] * 3 + [(0.2, 0.9)] * 4, "UULUTU"),
    ],
)
def test_lost_is_a_matter_of_presence_and_uncertain_of_confidence_too(session, verdicts, expected):
    answers = iter(verdicts)
    session._judge.verdict = lambda frame, estimate, sight: Verdict(*next(answers))
    assert states(session, *[HALF] * len(expected)) == expected


def test_without_a_target_the_session_is_idle(session):
    session.reset()
    report = session.step(FRAME)
    assert (report.state, report.box, report.confidence) == (State.IDLE, NOWHERE, 0)


def test_a_bad_box_leaves_the_target(session):
    with pytest.raises(LightTrackError):
        session.start(FRAME, Box(0, 0, -1, 5))
    assert states(session, SURE) == "T"


def test_a_new_box_ends_the_search(session):
    assert states(session, GONE, GONE, GONE) == "UUL"
    report = session.start(FRAME, Box(10, 20, 30, 40))
    assert (report.state, report.box, report.confidence) == (State.TRACKING, Box(10, 20, 30, 40), 1)
    assert states(session, GONE, GONE, HALF, GONE) == "UUUU"


def test_confidence_is_the_models_own_record():
    session = Session(ScriptedTracker(), SessionSettings(midpoint=6, slope=2))
    session.start(FRAME, START)
    even = 1 / (1 + np.exp(-6))
    (middle,), (high,), (low,) = (play(session, score) for score in (even, 1.0, 0.5))
    assert middle.confidence == pytest.approx(0.5)
    assert high.confidence == pytest.approx(1)
    assert low.confidence == pytest.approx(0, abs=1e-4)
    assert (high.state, low.state) == (State.TRACKING, State.UNCERTAIN)


def look(angle):
    """An appearance of length 1, that far (radians) from another."""
    return np.array([np.cos(angle), np.sin(angle), 0], np.float32)


def test_what_looks_unlike_the_target_is_not_believed_however_sure_the_network_is():
    tracker = ScriptedTracker()
    session = Session(
        tracker, SessionSettings(unlikeness=20, lost_frames=3, uncertain=0.4, lost=0.4, sure=0.6, again=0.6, found=0.6)
    )
    session.start(FRAME, START)
    said = ""
    for angle, frames in ((0.1, 5), (-0.1, 5), (0.2, 2), (1.0, 5), (0.2, 2)):
        tracker.appearance = look(angle)
        said += states(session, *[SURE] * frames)
    # The look-alike is taken for the target neither where it was nor while it is looked for.
    assert said == "T" * 12 + "UULLL" + "UT"


def test_unlikeness_takes_log_odds_away():
    tracker = ScriptedTracker()
    session = Session(tracker, SessionSettings(unlikeness=20))
    session.start(FRAME, START)
    for angle in (0.1, -0.1):
        tracker.appearance = look(angle)
        play(session, SURE)
    tracker.appearance = look(0.2)  # from the mean, which is at 0
    (report,) = play(session, SURE)
    log_odds = np.log(SURE / (1 - SURE)) - 20 * (1 - np.cos(0.2))
    assert report.confidence == pytest.approx(1 / (1 + np.exp(-log_odds)), abs=1e-4)


def test_a_target_that_slowly_comes_to_look_otherwise_stays_itself():
    tracker = ScriptedTracker()
    session = Session(tracker, SessionSettings(unlikeness=20))
    session.start(FRAME, START)
    for angle in np.linspace(0, 1.5, 150):
        tracker.appearance = look(angle)
        assert states(session, SURE) == "T"


def test_how_another_target_looked_is_forgotten():
    tracker = ScriptedTracker()
    session = Session(tracker, SessionSettings(unlikeness=20))
    for angle in (0.0, 1.5):
        session.start(FRAME, START)
        tracker.appearance = look(angle)
        assert states(session, SURE, SURE) == "TT"


def test_a_lost_target_is_reported_where_the_tracker_was_led(session):
    reports = play(session, (SURE, 50), (GONE, 70), (GONE, 70), (GONE, 70), (GONE, 9))
    assert [report.state for report in reports[-2:]] == [State.LOST, State.LOST]
    assert [report.box.x for report in reports] == [350, 420, 490, 560, 569]
    assert reports[-1].confidence == pytest.approx(GONE)


def test_the_search_starts_where_it_was_and_covers_the_frame_at_its_last_size(session):
    play(session, *[GONE] * 3)
    session._tracker.looked.clear()
    play(session, *[GONE] * 600)
    looked = session._tracker.looked
    # The network runs twice a frame: where the tracker was led, which here is where the target was, and elsewhere.
    assert looked[::2] == [START] * 600
    looked = looked[1::2]
    assert looked[0::4] == [START] * 150
    assert all((box.width, box.height) == (START.width, START.height) for box in looked)
    centres = np.array([box.centre for box in looked])
    assert ((centres >= 0) & (centres <= (640, 480))).all()
    # Every point of the frame comes into the middle half of some look.
    step = context_side(START.width, START.height)
    grid = np.stack(np.meshgrid(np.arange(0, 640, 5), np.arange(0, 480, 5)), -1).reshape(-1, 1, 2)
    inner = grid[((grid >= step / 2) & (grid <= np.array((640, 480)) - step / 2)).all(axis=(1, 2))]
    assert (np.abs(inner - centres).max(axis=2).min(axis=1) <= step / 2 + 1e-6).all()
    # Near places come first.
    distances = np.linalg.norm(centres[:9] - START.centre, axis=1)
    assert (distances <= 1.5 * step).all()


def test_the_tracker_goes_on_from_where_it_was_led(session):
    play(session, *[GONE] * 3)
    session._tracker.looked.clear()
    play(session, *[(GONE, 20)] * 3)
    assert [box.x for box in session._tracker.looked[::2]] == [300, 320, 340]
    # A target that was lost for nothing is found where it went meanwhile.
    reports = play(session, (SURE, 20), (SURE, 20))
    assert [report.state for report in reports] == [State.UNCERTAIN, State.TRACKING]
    assert reports[-1].box == START._replace(x=400)


def test_a_target_is_found_elsewhere_when_it_convinces_on_frames_in_a_row(session):
    play(session, *[GONE] * 3)
    session._tracker.elsewhere = lambda place: SURE if place.x > START.x else GONE
    reports = play(session, *[GONE] * 20)
    found = [report.state for report in reports].index(State.TRACKING)
    assert [report.state for report in reports[:found]] == [State.LOST] * found
    assert reports[found].box.x > START.x
    # While it convinces once alone, it is another thing; the tracker goes on where it was.
    session.start(FRAME, START)
    play(session, *[GONE] * 3)
    answers = iter([SURE, GONE] * 10)
    session._tracker.elsewhere = lambda place: next(answers)
    reports = play(session, *[GONE] * 20)
    assert {(report.state, report.box) for report in reports} == {(State.LOST, START)}


def test_a_place_that_a_detector_suggests_is_looked_at_first_and_has_to_convince(session):
    there, larger = Box(20, 400, 44, 33), Box(20, 400, 400, 300)
    session.suggest([there])  # not lost: nobody looks
    assert states(session, GONE, GONE, GONE) == "UUL"
    session._tracker.looked.clear()
    session.suggest([larger, there])
    session._tracker.elsewhere = lambda place: SURE if place == there else GONE
    reports = play(session, GONE, GONE)
    assert session._tracker.looked[1] == there  # the nearest in size comes first
    assert [report.state for report in reports] == [State.LOST, State.TRACKING]
    assert reports[1].box == there
    # What does not convince changes nothing, and then the search goes on at its own places.
    session.start(FRAME, START)
    play(session, *[GONE] * 3)
    session._tracker.elsewhere = lambda place: HALF
    session._tracker.looked.clear()
    session.suggest([there, Box(-900, 0, 40, 30), Box(0, 1e30, 40, 30)])  # what lies outside is left out
    assert {report.state for report in play(session, GONE, GONE, GONE)} == {State.LOST}
    assert session._tracker.looked[1] == there
    assert there not in session._tracker.looked[2:]


def find_elsewhere(session):
    """The tracker was led astray; the target is found to its right, and followed there."""
    session.start(FRAME, START)
    play(session, *[GONE] * 3)
    session._tracker.elsewhere = lambda place: SURE if place.x > START.x else GONE
    while (report := play(session, GONE)[0]).state != State.TRACKING:
        pass
    assert report.box.x > START.x
    return report.box


def test_a_wrong_find_is_taken_back_when_the_place_that_was_left_is_more_convincing(session):
    found = find_elsewhere(session)
    session._tracker.elsewhere = lambda place: 0.95 if place == START else GONE
    reports = play(session, *[SURE] * 3)
    assert [report.box for report in reports] == [found, START, START]
    # Less convincing, it changes nothing, and after some frames nobody looks there any more.
    found = find_elsewhere(session)
    session._tracker.elsewhere = lambda place: 0.7 if place == START else GONE
    assert {report.box for report in play(session, *[SURE] * 30)} == {found}
    session._tracker.looked.clear()
    play(session, SURE, SURE)
    assert session._tracker.looked == [found, found]


def test_in_sight_the_network_runs_once_a_frame(session):
    play(session, SURE, SURE, GONE, SURE, SURE)
    assert len(session._tracker.looked) == 5


def test_every_box_lies_inside_the_frame(session):
    for report in play(session, (SURE, 500), (SURE, -900), (HALF, 3000), (GONE, -99999), GONE, GONE, GONE):
        x, y, width, height = report.box
        assert x >= 0
        assert y >= 0
        assert width >= 0
        assert height >= 0
        assert x + width <= 640
        assert y + height <= 480


@pytest.fixture(scope="module")
def model(mobile):
    return load_model(mobile)


def crossing(shared):
    folder = shared / "sequences/crossing"
    first = Box(*map(float, (folder / "groundtruth.txt").read_text().split("\n")[0].replace(",", " ").split()))
    return first, [from_bgr(cv2.imread(str(folder / f"img/{i:04}.jpg"))) for i in range(1, 41)]


def test_a_target_in_sight_is_where_the_plain_tracker_says_bit_by_bit(model, shared):
    box, frames = crossing(shared)
    tracker = create_tracker(model)
    plain, session = create_tracker(model), Session.of(tracker, model)
    plain.init(frames[0], box)
    session.start(frames[0], box)
    for frame in frames[1:]:
        report = session.step(frame)
        assert report.state == State.TRACKING
        assert report.box == plain.update(frame).box


def test_a_lost_target_is_where_the_plain_tracker_says_bit_by_bit_however_much_is_looked_at(model, shared):
    box, frames = crossing(shared)
    never = SessionSettings(uncertain=1, sure=1, lost=1, lost_frames=1, again=1, found=1)  # lost at once, and for good
    session = Session(create_tracker(model), never, Verifier.load(model.verifier) if model.verifier else None)
    plain = create_tracker(model)
    plain.init(frames[0], box)
    session.start(frames[0], box)
    for frame in frames[1:30]:
        report = session.step(frame)
        assert report.state == State.LOST
        assert report.box == plain.update(frame).box


@pytest.mark.parametrize("gap", ["black", "noise", "elsewhere"])
def test_a_target_that_vanishes_is_lost_and_found_again(model, shared, gap):
    box, frames = crossing(shared)
    session = Session.of(create_tracker(model), model)
    session.start(frames[0], box)
    rng = np.random.default_rng(0)
    absent = {
        "black": lambda: np.zeros((240, 360, 3), np.uint8),
        "noise": lambda: rng.integers(0, 256, (240, 360, 3), dtype=np.uint8),
        "elsewhere": lambda: cv2.imread(str(shared / "sequences/boat1/img/0001.jpg"))[:240, :360],
    }[gap]
    assert all(session.step(frame).state == State.TRACKING for frame in frames[1:15])
    during = [session.step(from_bgr(absent())).state for _ in range(20)]
    assert State.TRACKING not in during[5:]
    assert during[-1] == State.LOST
    after = [session.step(frame).state for frame in frames[15:25]]
    assert after[-1] == State.TRACKING


def test_a_verifier_of_another_network_is_refused(model, shared):
    box, frames = crossing(shared)
    verifier = Verifier.load(model.verifier)
    other = dataclasses.replace(verifier, cell_mean=verifier.cell_mean[:8])
    session = Session(create_tracker(model), model.session, other)
    with pytest.raises(LightTrackError, match="features of 8 channels, its network gives 96"):
        session.start(frames[0], box)


def test_a_verifier_is_read_as_it_was_written(model, tmp_path):
    verifier = Verifier.load(model.verifier)
    verifier.save(tmp_path / "copy.npz")
    again = Verifier.load(tmp_path / "copy.npz")
    np.testing.assert_array_equal(again.cell_map, verifier.cell_map)
    np.testing.assert_array_equal(again.right.weights, verifier.right.weights)
    assert (tmp_path / "copy.npz").stat().st_size < 50_000
    (tmp_path / "cut.npz").write_bytes((tmp_path / "copy.npz").read_bytes()[:2000])
    with pytest.raises(LightTrackError, match=r"cut.npz: not a verifier .*fit-session"):
        Verifier.load(tmp_path / "cut.npz")
