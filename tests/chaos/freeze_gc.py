"""Imported last by the process from which each attempt is forked: hides what it has imported from the collector.

Airflow's LocalExecutor does the same. Otherwise the first full collection in each attempt takes longer than its work.
"""

from __future__ import annotations

import gc

gc.freeze()
