"""What is loaded: jobs, periods, slices, and the SQL that reads them."""
