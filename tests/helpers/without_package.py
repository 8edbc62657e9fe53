"""The beginning of a program for a process in which this package cannot be imported."""

ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tove_lvlm":
            raise ModuleNotFoundError("not installed", name=name)

sys.meta_path.insert(0, Absent())
"""
