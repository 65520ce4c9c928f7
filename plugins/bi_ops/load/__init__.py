"""The data flow: plan, stage, publish."""
