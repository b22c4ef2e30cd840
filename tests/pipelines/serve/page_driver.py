"""Chromium without a window, and what a person sees and does in it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
).split()
# Of every text that is seen: its contrast with the first ground below it that is not transparent.
CONTRASTS = """
const light = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3)
    .map((value) => value / 255).map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)") return colour;
  }
};
const seen = [...document.body.querySelectorAll("*")].filter((each) => each.checkVisibility({visibilityProperty: true})
  && [...each.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim()));
return seen.map((each) => {
  const lights = [light(getComputedStyle(each).color), light(ground(each))].sort((one, other) => one - other);
  return [each.textContent.slice(0, 40), (lights[1] + 0.05) / (lights[0] + 0.05)];
});
"""


def start_chromium(program: str, driver: str, profile: Path) -> Chrome:
    """Start it with an empty profile, a camera of coloured pictures, and logs of its console and its requests."""
    options = ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options=options, service=Service(driver))


class Page:
    """What a person sees and does.

    Args:
        driver: of Chromium, with the page open.
    """

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def __getitem__(self, name: str) -> WebElement:
        return self.driver.find_element("id", name)

    def choose(self, *paths: Path) -> None:
        self["file"].send_keys("\n".join(map(str, paths)))

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], object]) -> Any:
        return WebDriverWait(self.driver, 20, 0.05).until(lambda _: condition())

    def result_of(self, *paths: Path) -> None:
        self.choose(*paths)
        self.until(self["details"].is_displayed)

    def moment(self) -> float:
        return self.run("return document.getElementById('video').currentTime")

    def contrasts(self) -> list[tuple[str, float]]:
        """Of every text that is seen: its begin, and its contrast with what is behind it."""
        return [(text, contrast) for text, contrast in self.run(CONTRASTS)]

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, **preferences: str) -> None:
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in preferences.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def addresses(self) -> list[str]:
        """Of all requests since this was asked last."""
        entries = (entry["message"] for entry in self.driver.get_log("performance"))
        return [
            address
            for message in entries
            if '"Network.requestWillBeSent"' in message
            for address in re.findall(r'"request":\{.*?"url":"([^"]+)"', message)
        ]
