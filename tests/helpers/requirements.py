"""What tests of caption metrics need: Java."""

import shutil

import pytest

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no `java` on PATH: install default-jre-headless")
