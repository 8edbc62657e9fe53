"""Where weights come from and how they get here: sources, hub, mirror folder, files of packages."""
