"""A browser and the forecaster's page in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opened_page import HOSTILE, Opened

from ltm.forecast.devices import device
from ltm.forecast.page import write_page


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp("forecast") / "page.html", devices=[device(HOSTILE)])


@pytest.fixture
def opened(browser: Any, page_path: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    width = getattr(request, "param", 1280)
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    context.set_default_timeout(20_000)
    yield Opened(context.new_page(), page_path)
    context.close()
