"""Plugins for the hosts as they are published: nothing of theirs is edited, our tower is installed beside them.

What the package of a host has: README.md here, and `contract.py`.
"""
