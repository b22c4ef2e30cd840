"""The page in headless Chromium: a person drops, chooses or records a video and sees what the server answers."""

import base64
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.action_chains import ActionChains

from t3d_core.video.decoding import probe
from t3d_core.video.playable import write_playable
from tests.pipelines.serve.page_driver import Page, start_chromium
from tests.pipelines.serve.page_stub import CLASSES, PAGE, SECONDS, PageStub, reply, result

pytestmark = pytest.mark.heavy

MIN_CONTRAST = 4.5  # WCAG 2.2, 1.4.3


def moving_square(num_frames: int, *, width: int = 64) -> Iterator[np.ndarray]:
    for place in range(num_frames):
        frame_HWC = np.full((48, width, 3), 60, np.uint8)
        frame_HWC[16:32, (left := place % (width - 16)) : left + 16] = 220
        yield frame_HWC


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "moving square.mp4"
    write_playable(moving_square(int(SECONDS * 10)), path=path, fps=10)
    return path


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("overlay") / "overlay.mp4"
    write_playable(moving_square(16, width=48), path=path, fps=8)
    return path.read_bytes()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        why = "needs the programs chromium and chromedriver: apt-get install chromium chromium-driver"
        if os.environ.get("REQUIRE_CHROMIUM") == "1":
            pytest.fail(why)
        pytest.skip(why)
    driver = start_chromium(*map(str, programs), tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def server() -> Iterator[PageStub]:
    with PageStub() as stub:
        thread = threading.Thread(target=stub.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield stub
        stub.shutdown()
        thread.join()


@pytest.fixture
def page(chromium: Chrome, server: PageStub) -> Iterator[Page]:
    """The page as at a first visit; at the end, no other host was asked and nothing went wrong unseen."""
    server.reset()
    page = Page(chromium)
    page.prefer(prefers_color_scheme="light")
    page.resize(1200, 900)
    page.addresses()  # of Chromium's own start page
    chromium.get(server.address)
    page.run("sessionStorage.clear()")
    page.until(lambda: "classes" in page["about"].text)
    yield page
    addresses = page.addresses()
    assert f"{server.address}model" in addresses
    assert [each for each in addresses if not each.startswith((server.address, "data:", "blob:"))] == []
    problems = [entry["message"] for entry in chromium.get_log("browser")]
    assert [each for each in problems if not re.search(r"/predict\S* - .* status of 4\d\d", each)] == []


def test_the_policy_of_the_page_knows_its_style_and_script_and_no_other_host() -> None:
    html = PAGE.read_text(encoding="ascii")
    for tag in ("style", "script"):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in html, f"put sha256-{digest} into the policy of page.html"
    assert set(re.findall(r"https?://[^'\"\s]+", html)) == {"http://www.w3.org/2000/svg"}  # a name space


def test_a_chosen_video_is_sent_as_it_is_and_its_result_shown(page, server, video):
    page.result_of(video)
    [(path, headers, body)] = server.received
    assert path == "/predict?top=5&explain=true"
    assert "Authorization" not in headers
    assert body == video.read_bytes()
    rows = page["top"].find_elements("css selector", "li")
    assert [row.text.split("\n") for row in rows[:3]] == [
        ["jumping", "0.500"],
        ["walking", "0.400"],
        ["<b>bold</b> waving", "0.017"],
    ]
    bar, track = (rows[1].find_element("css selector", each).rect["width"] for each in (".track span", ".track"))
    assert bar == pytest.approx(0.4 * track, rel=0.02)
    assert page["announcement"].get_attribute("textContent") == (
        "moving square.mp4: jumping 0.50, walking 0.40, <b>bold</b> waving 0.02, bending 0.02, skipping 0.02"
    )
    assert page.driver.title == "jumping 0.50 - moving square.mp4"
    assert not page["why"].is_displayed()  # the server sent no explanation
    assert len(page["lines"].find_elements("css selector", "polyline")) == 6  # top-5 and the highest other class


@pytest.mark.parametrize("width", [1200, 360])
def test_nothing_moves_when_the_result_arrives(page, server, video, overlay, width):
    page.resize(width, 900)
    server.replies = [reply(200, result(overlay), is_held=True)]
    page.choose(video)
    page.until(lambda: page["stage"].text.startswith("Scoring"))
    places = [page[name].rect for name in ("name", "status", "video", "top")]
    server.replies[0].may_go.set()
    page.until(page["details"].is_displayed)
    assert [page[name].rect for name in ("name", "status", "video", "top")] == places


def test_a_click_on_the_timeline_moves_the_video_and_a_playhead_follows_it(page, video):
    page.result_of(video)
    width = page["slider"].rect["width"]
    for share in (0.75, 0.2):
        ActionChains(page.driver).move_to_element_with_offset(
            page["slider"], round((share - 0.5) * width), 0
        ).click().perform()
        page.until(lambda share=share: abs(page.moment() - share * SECONDS) < 0.1)
        assert float(page["slider"].get_attribute("aria-valuenow")) == pytest.approx(share * SECONDS, abs=0.1)
    assert page["moment"].text.startswith("0:02.0: jumping 0.70, walking 0.20")
    page["rows"].find_elements("css selector", "button")[1].click()  # the begin of the second segment
    page.until(lambda: page.moment() == 6)
    page.run("document.getElementById('video').muted = true; return document.getElementById('video').play()")
    page.until(lambda: page.moment() > 6.2)
    page.run("document.getElementById('video').pause()")
    left = page.until(lambda: page.run("return parseFloat(document.getElementById('playhead').style.left)"))
    assert left == pytest.approx(100 * page.moment() / SECONDS, abs=1)


def test_all_of_it_works_from_the_keyboard(page, server, video, overlay):
    server.replies = [reply(200, result(overlay))]
    page.result_of(video)
    page.run("document.activeElement.blur(); page.file.click = () => { document.title = 'asks for files' }")
    reached = []
    while "slider" not in reached:
        assert len(reached) < 20
        page.press(Keys.TAB)
        focused = page.driver.switch_to.active_element
        reached.append(focused.get_attribute("id"))
        if focused.tag_name != "video":  # its controls are the browser's
            assert focused.value_of_css_property("outline-style") == "solid"
        if reached == ["choose"]:
            page.press(Keys.ENTER)
            page.until(lambda: page.driver.title == "asks for files")
    assert [each for each in reached if each not in ("", "video")] == ["choose", "record", "plain", "heat", "slider"]
    for key, seconds in ((Keys.ARROW_RIGHT, 0.1), (Keys.PAGE_UP, 1.1), (Keys.ARROW_LEFT, 1.0), (Keys.END, SECONDS)):
        page.press(key)
        page.until(lambda seconds=seconds: page.moment() == pytest.approx(seconds, abs=0.02))
    assert page["slider"].get_attribute("aria-valuetext").startswith("0:10.0: walking 0.70, jumping 0.20")
    page.press(Keys.HOME, " ")
    page.until(lambda: page.moment() > 0.1)
    page.press(" ")
    assert page.run("return document.getElementById('video').paused")


def test_the_overlay_takes_the_place_of_the_video_and_of_its_clip_on_the_timeline(page, server, video, overlay):
    server.replies = [reply(200, result(overlay))]
    page.prefer(prefers_reduced_motion="reduce")
    page.result_of(video)
    layers = page["layers"].find_elements("css selector", "#layers > li")
    assert [layer.text.split("\n") for layer in layers] == [
        ["Temporal layer 1", "1 frame: 30 %", "3 frames: 50 %", "6 frames: 20 %"],
        ["Temporal layer 2", "no depth contributes"],
    ]
    widths = [part.rect["width"] for part in layers[0].find_elements("css selector", ".parts span")]
    assert widths[1] / sum(widths) == pytest.approx(0.5, abs=0.02)
    page["heat"].send_keys(Keys.ENTER)
    assert page["overlay"].is_displayed()
    assert not page["video"].is_displayed()
    page.until(lambda: page.run("return document.getElementById('overlay').readyState >= 2"))
    assert page.run("return document.getElementById('overlay').paused")  # who wants less motion starts it
    page.run("seek(3)")
    page.until(lambda: page.run("return document.getElementById('overlay').currentTime") == pytest.approx(1, abs=0.05))
    page.run("seek(8)")  # outside of the explained clip there is only the video
    assert page["video"].is_displayed()
    page.until(lambda: page.moment() == 8)


def test_a_reason_of_the_server_is_shown_as_text_and_the_video_can_be_sent_again(page, server, video):
    page.run("window.alert = () => { document.title = 'attacked' }")
    reason = "corrupt at frame 3: <img src=x onerror=alert(1)>"
    server.replies = [reply(422, {"reason": reason}), reply(429, {"reason": "busy"}, Retry_After="7"), *server.replies]
    page.choose(video)
    page.until(lambda: page["stage"].text == reason)
    assert page["announcement"].get_attribute("textContent") == f"moving square.mp4: {reason}"
    page["again"].click()
    page.until(lambda: page["stage"].text == "busy (The server asks to wait 7 s.)")
    page["again"].click()
    page.until(page["details"].is_displayed)
    assert page.driver.title.startswith("jumping")
    assert len(server.received) == 3


def test_what_the_limits_exclude_is_not_sent(page, server, video, tmp_path):
    page.run("model.limits = {mib: 0.001, seconds: 60}")
    page.choose(video)
    page.until(lambda: "This server takes at most 0.001 MiB" in page["stage"].text)
    page.run("model.limits = {mib: 64, seconds: 5}")
    page["again"].click()
    page.until(lambda: page["stage"].text == "The video lasts 10 seconds. This server takes at most 5 seconds.")
    (empty := tmp_path / "empty.mp4").touch()
    page.choose(empty)
    page.until(lambda: page["stage"].text == "The file is empty.")
    assert server.received == []


def test_a_token_is_asked_for_and_kept_until_the_tab_is_closed(page, server, video):
    server.token, server.model["needs_token"] = "secret", True
    page.driver.refresh()
    page.until(page["secret"].is_displayed)
    page.choose(video)
    page["secret"].send_keys("wrong", Keys.ENTER)
    page.until(lambda: page["whytoken"].text == "this token is not right")
    page.press("secret", Keys.ENTER)  # the field has the focus
    page.until(page["details"].is_displayed)
    assert server.received[0][1]["Authorization"] == "Bearer secret"
    page.driver.refresh()
    page.until(lambda: "classes" in page["about"].text)
    assert not page["secret"].is_displayed()
    page.result_of(video)


def test_a_video_can_be_cancelled_and_the_next_one_is_scored(page, server, video):
    held = reply(200, result(), is_held=True)
    server.replies = [held, *server.replies]
    page.choose(video, video)
    page.until(lambda: page["stage"].text.startswith("Scoring"))
    page["cancel"].click()
    assert page["stage"].text == "Cancelled."
    page.until(lambda: page["list"].text.split("\n")[1::2] == ["cancelled", "jumping 0.50"])
    held.may_go.set()
    page["list"].find_elements("css selector", "button")[1].click()
    assert page["details"].is_displayed()


def test_a_file_is_dropped_anywhere(page, server):
    page.run(
        "const data = new DataTransfer(); data.items.add(new File(['frames'], 'dropped.mkv'));"
        "for (const name of ['dragenter', 'drop'])"
        " document.querySelector('footer').dispatchEvent("
        "new DragEvent(name, {bubbles: true, cancelable: true, dataTransfer: data}))"
    )
    page.until(page["details"].is_displayed)
    assert page["name"].text == "dropped.mkv"
    assert [body for *_, body in server.received] == [b"frames"]


def test_a_video_that_the_browser_cannot_play_has_its_result_and_a_timeline(page, tmp_path):
    path = tmp_path / "old.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p")
        for frame_HWC in moving_square(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC)))
        container.mux(stream.encode(None))
    page.result_of(path)
    page.until(page["unplayable"].is_displayed)
    assert not page["video"].is_displayed()
    page["slider"].send_keys(Keys.END)
    assert page["moment"].text.startswith("0:10.0: walking 0.70")


def test_three_seconds_of_the_camera_are_a_video_that_we_can_read(page, server, tmp_path):
    page["record"].click()
    page.until(lambda: page["count"].text == "Recording in 3")
    assert page["preview"].is_displayed()
    page.until(page["details"].is_displayed)
    assert not page["camera"].is_displayed()
    [(_, _, body)] = server.received
    name = page["name"].text
    (recorded := tmp_path / f"recorded{Path(name).suffix}").write_bytes(body)
    info = probe(recorded)
    assert 2 <= info.num_frames / info.fps <= 4
    page.run("seek(1)")
    page.until(lambda: page.moment() == 1)


FAILS = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{}'))"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (FAILS.format("NotFoundError"), "There is no camera."),
        (FAILS.format("NotAllowedError"), "The camera is not allowed."),
        ("Object.defineProperty(window, 'isSecureContext', {value: false})", "Browsers give the camera only to pages"),
    ],
    ids=["none", "not allowed", "insecure page"],
)
def test_a_camera_that_does_not_work_is_said_plainly(page, fault, words):
    page.run(fault)
    page["record"].send_keys(Keys.ENTER)
    page.until(lambda: page["notice"].text.startswith(words))
    assert page["record"].is_enabled()
    assert not page["camera"].is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_and_a_narrow_page_does_not_scroll_sideways(page, server, video, overlay, scheme):
    server.replies = [reply(200, result(overlay)), reply(422, {"reason": "not a video"})]
    page.prefer(prefers_color_scheme=scheme)
    page.resize(360, 700)
    grounds = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", grounds)[0]) > 128) == (scheme == "light")
    texts = set()
    for _ in range(2):  # a result, then an error
        page.choose(video)
        page.until(lambda: page["details"].is_displayed() or page["again"].is_displayed())
        page.run("note('There is no camera.'); page.token.hidden = false; page.classes.open = true")
        contrasts = page.contrasts()
        texts |= {text for text, _ in contrasts}
        assert [each for each in contrasts if each[1] < MIN_CONTRAST] == []
        assert page.run("return document.documentElement.scrollWidth") <= 360
    assert {CLASSES[0], "not a video", "There is no camera.", "Use token"} <= texts
