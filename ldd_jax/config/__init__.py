"""From a config to objects and back: sections, recipes, what is refused, the workdir's files."""
