# Astronomer's image, which `astro dev start` and `astro deploy` build: Airflow 3.3.1, as `make compat` runs it.
# docs/astronomer.md names the other Runtimes. Without -python-3.12 the image has Runtime's default, Python 3.14.
FROM astrocrpublic.azurecr.io/runtime:3.3-5-python-3.12
