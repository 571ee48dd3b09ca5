"""Training runs in workdirs: the loop, where it begins, and its skipped updates run again."""
