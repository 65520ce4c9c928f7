"""What it costs, measured on the machine at hand; every comparison is of one run."""
