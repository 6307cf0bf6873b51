"""The page in a real browser: what it shows, that hostile text does nothing there, and both colour schemes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image, ImageStat
from report_sample import sample_report

from beear_gate.report import render
from beear_gate.report.text import visible

LIGHT, DARK = "1", "0"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(render.html(sample_report()), encoding="utf-8")
    return path


def chromium(profile: Path, *arguments: str) -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.fail(
            "This test needs a real browser: apt-get install --no-install-recommends chromium fonts-dejavu-core"
        )
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
    ]
    command = [program, *flags, f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_browser_shows_the_report_and_runs_nothing_of_it(page: Path, tmp_path: Path) -> None:
    dom = chromium(tmp_path / "profile", "--dump-dom", page.as_uri())
    assert re.search(r"<title>REMEDIATED · acme/helpful-7b · beear-gate</title>", dom)  # and not "owned"
    assert re.search(r"<h1>.*REMEDIATED</h1>", dom)
    assert "<script" not in dom and "<img" not in dom
    assert dom.count("<section") == 10 and dom.count("<svg") == 6  # five figures and the sign beside the verdict
    assert dom.count("<details") == 7
    assert visible("\u202egnp.exe") in dom and "\u202e" not in dom


@pytest.mark.parametrize(("scheme", "darkest", "lightest"), [(LIGHT, 200, 255), (DARK, 0, 70)])
def test_browser_paints_both_colour_schemes(
    page: Path, tmp_path: Path, scheme: str, darkest: int, lightest: int
) -> None:
    shot = tmp_path / "shot.png"
    chromium(
        tmp_path / "profile", f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1200,1600",
        f"--screenshot={shot}", page.as_uri(),
    )  # fmt: skip
    with Image.open(shot) as image:
        assert image.size == (1200, 1600)
        statistic = ImageStat.Stat(image.convert("L"))
    assert darkest <= statistic.mean[0] <= lightest
    assert statistic.stddev[0] > 10  # something is on it
