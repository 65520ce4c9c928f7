"""Bundles the page's chart library (Vega) from its Python wheel, without blocking the event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

_EXECUTOR = ThreadPoolExecutor(1, thread_name_prefix="bi-reports-vega")
_PROGRAM = 'import sys, vl_convert; sys.stdout.write(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))'
_BUNDLE_SECONDS = 60


async def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the wheel: the page requests no other host."""
    return await asyncio.get_running_loop().run_in_executor(_EXECUTOR, _bundle)


@lru_cache
def _bundle() -> str:
    """Run once, in a separate process: bundling takes seconds and holds Python's interpreter lock throughout."""
    process = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=_BUNDLE_SECONDS
    )
    return process.stdout
