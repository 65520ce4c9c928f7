# Astronomer's image: `astro dev start` and `astro deploy` build it. Any Runtime of 3.3 will do; docs/astronomer.md.
FROM astrocrpublic.azurecr.io/runtime:3.3-2
