"""Reports: what the collections say, drawn; each defined once, in include/charts/."""
