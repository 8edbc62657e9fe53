"""The miniature: a small synthetic world with exact depth, normals and edges, and text about it.

Import from the modules: `scene` (what is where), `render` (pictures and maps), `language` (text), `dataset` (files).
"""
