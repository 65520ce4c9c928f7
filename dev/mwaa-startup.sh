#!/bin/sh
# Amazon MWAA runs this before each of Airflow's processes. docs/configuration.md of MEG BI explains the settings.
# Keep secrets in Secrets Manager, not in this file.
export BI_AGGREGATE=1
export MEG_REGIONS=eu,uk
export BI_TIMEZONE=Europe/Dublin
export BI_START_DATE=2026-01-01
