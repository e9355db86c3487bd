"""Settings of the result page."""

from __future__ import annotations

from typing import Literal

from ltm.config import Section


class DashboardSection(Section):
    path: str = "ltm_result_dashboard.html"
    """Where the page is written: a name inside the work folder, or an absolute path."""
    language: Literal["en", "ru"] = "en"
    """Language that the page opens in; the reader can switch in the page."""
