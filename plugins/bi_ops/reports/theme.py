"""The colours of all charts in light and dark mode, from a palette that is safe for colour-blind readers."""

from __future__ import annotations

from typing import Any

_PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442"]
"""The palette of Okabe and Ito (https://jfly.uni-koeln.de/color/), ordered so that neighbours differ most."""


def _theme(text: str, lines: str) -> dict[str, Any]:
    return {
        "background": "transparent",
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "range": {"category": _PALETTE},
        "mark": {"color": _PALETTE[0]},
        "axis": {
            "labelColor": text,
            "titleColor": text,
            "titleFontWeight": "normal",
            "gridColor": lines,
            "domainColor": lines,
            "tickColor": lines,
        },
        "axisXQuantitative": {"labelOverlap": True, "labelSeparation": 8},
        "legend": {
            "labelColor": text,
            "titleColor": text,
            "titleFontWeight": "normal",
            "symbolBaseFillColor": text,
            "symbolBaseStrokeColor": text,
            "labelLimit": 0,
            "orient": "top",
        },
        "title": {"color": text},
    }


THEMES = {"light": _theme("#1a202c", "#d5dbe3"), "dark": _theme("#e6e9ee", "#454d5a")}
"""Vega's configuration in each of Airflow's two colour modes."""
