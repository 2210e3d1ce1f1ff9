"""A plug-in of stepreward for its tests: a method of two families, a format, a checkpoint and a grader."""
