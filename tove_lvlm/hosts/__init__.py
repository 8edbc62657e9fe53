"""Plugins for the hosts as they are published: nothing of theirs is edited, our tower is installed beside them."""
