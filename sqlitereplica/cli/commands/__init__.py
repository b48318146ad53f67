"""One module for a command or a few that belong together.

Each has ``add(commands)``, which declares its parsers and the functions they run.
"""
