#!/bin/sh
# Amazon MWAA runs this before each of Airflow's processes. The settings are MEG BI's; what they mean stands in its README.
# Secrets do not belong here: they are in Secrets Manager.
export BI_AGGREGATE=1
export MEG_REGIONS=eu,uk
export BI_TIMEZONE=Europe/Dublin
export BI_START_DATE=2026-01-01
