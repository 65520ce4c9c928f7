"""The doctor: whether all that the jobs need is there, and no more, told with the cure of what is not."""
