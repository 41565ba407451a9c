"""The interactive widgets where each output is a page of its own, as in Google Colab: `make colab`."""

import html
import shutil
import sys

import pytest
import torch
from playwright.sync_api import sync_playwright

from exercises_utils.plotting import widgets

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.colab,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt-get install chromium"),
]


def test_every_widget_is_drawn_in_a_frame_of_its_own_without_a_network(monkeypatch):
    shown = []
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    monkeypatch.setattr(widgets, "display", lambda data, raw: shown.append(data["text/html"]))
    for heads in (1, 2):
        patterns = torch.eye(4).expand(heads, 4, 4)
        widgets.attention_heads(patterns, list("abcd"), [f"0.{head}" for head in range(heads)])
    frames = "".join(
        f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(output)}"></iframe>' for output in shown
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_content(frames)
        for frame in page.frames[1:]:
            frame.wait_for_selector("div[class^=cv-] canvas", timeout=60_000)
        assert len(page.frames) == 1 + len(shown)
        assert errors == []
        browser.close()
