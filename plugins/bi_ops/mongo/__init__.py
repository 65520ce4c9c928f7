"""The live and the staging MongoDB database."""
